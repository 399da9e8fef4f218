"""The examples in docstrings give the results they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(file.relative_to(ROOT / folder).with_suffix("").parts)
    for folder in (".", "kernels", "widgets")
    for package in ("oss_lab", "oss_kernels", "oss_widgets")
    for file in sorted((ROOT / folder / package).rglob("*.py"))
    if ">>>" in file.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted
    assert not failed
