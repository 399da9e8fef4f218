"""The model and the engines run when only torch, NumPy and jaxtyping are installed. A model without
values, as loading builds it, imports neither torch's compiler nor sympy, which take over a second.
"""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, re, sys
from importlib import metadata

ALLOWED = {"torch", "numpy", "jaxtyping", "triton", "numba"}

def needed(names):
    todo, found = list(names), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        todo += [re.match(r"[\\w.-]+", each).group() for each in wanted if "extra ==" not in each]
    return found

def names_of(distributions):
    packages = metadata.packages_distributions()
    return {m for m, of in packages.items() if needed_of(of) & distributions}

def needed_of(of):
    return {re.sub(r"[-_.]+", "-", each).lower() for each in of}

allowed = names_of(needed(ALLOWED))
# tqdm: torch.hub imports it where it is installed, and does without elsewhere
blocked = set(metadata.packages_distributions()) - allowed - {"oss_lab", "oss_kernels", "tqdm"}
assert {"tiktoken", "safetensors", "rich", "typer", "xarray", "pandas", "plotly"} <= blocked

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not on a bare machine")

sys.meta_path.insert(0, Blocked())

import oss_lab.engine, oss_lab.model
for package in (oss_lab.model, oss_lab.engine):
    for each in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{each.name}")

import torch
from oss_kernels.backends import load_backend
from oss_lab.config import ModelConfig
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Engines
from oss_lab.engine.request import Request
from oss_lab.hooks.selection import Selection
from oss_lab.model import Transformer

config = ModelConfig(num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=96,
    hidden_size=64, intermediate_size=32, head_dim=16, num_attention_heads=4,
    num_key_value_heads=2, sliding_window=8, initial_context_length=256)
with torch.device("meta"):
    Transformer(config)
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
engines = Engines(Transformer(config).eval(), load_backend("cpu"))
found = []
for engine in (engines.reference, engines.kernels):
    batch = Batch(engine)
    points = Selection.of(["resid.post"])
    (row,) = batch.add([Request((1, 2, 3), max_tokens=4, selection=points)])
    found.append([token.id for _, token in batch])
    assert row.recording.tensors()["resid.post", 1].shape == (6, 64)
assert len(found[0]) == 4
"""


def test_model_and_engines_need_only_torch_numpy_and_jaxtyping():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
