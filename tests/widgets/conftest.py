"""A page that runs the JavaScript of `widgets/oss_widgets/js`, in Chromium.

The modules are joined into one script and opened as a file, as a reader opens a saved page. The
tests need no server, and the page cannot fetch anything.
"""

import base64
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiktoken
from axe_playwright_python.sync_playwright import Axe
from oss_widgets.join import join_modules, read_modules, read_styles
from oss_widgets.page.gallery_data import build_gallery_data

import oss_lab
from oss_lab.lab import Lab
from oss_lab.tokenizer import load_vocabulary

ASSETS = Path(oss_lab.__file__).with_name("assets") / "nano"

# In the page: the model `nano`, an empty cache, the bytes of an array as text, and the message of
# the LabError that a function throws.
SET_UP = """
({ config, weights }) => {
  window.toText = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const parts = [];
    for (let n = 0; n < bytes.length; n += 32768) {
      parts.push(String.fromCharCode(...bytes.subarray(n, n + 32768)));
    }
    return btoa(parts.join(""));
  };
  window.refusalOf = (call) => {
    try {
      call();
    } catch (error) {
      return error instanceof modules["errors.js"].LabError ? error.message : `${error}`;
    }
  };
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0));
  window.startNano = (modules, changes = {}) => {
    const { readConfig } = modules["model/config.js"];
    const { Transformer } = modules["model/transformer.js"];
    return new Transformer(readConfig({ ...config, ...changes }), bytes);
  };
  window.nano = startNano(modules);
  window.newCache = () => new modules["engine/cache.js"].KVCache(nano.config);
}
"""


@pytest.fixture(scope="module")
def open_script(chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """open_script(script) -> a Playwright page, opened as a file, that has run it.

    Fails at the end if a page had an error that it did not catch.
    """
    context = chromium.new_context(offline=True)
    errors: list[str] = []

    def open_page(script: str):
        assert "</script" not in script
        file = tmp_path_factory.mktemp("page") / "page.html"
        file.write_text(f'<!doctype html><meta charset="utf-8"><script>{script}</script>', "utf-8")
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield open_page
    context.close()
    assert not errors


@pytest.fixture(scope="module")
def joined_page(open_script):
    """A page in which `modules` has all modules, by path."""
    return open_script(join_modules(read_modules()))


@pytest.fixture(scope="module")
def nano_page(joined_page):
    """`joined_page` with the model and the functions of `SET_UP`."""
    config = json.loads((ASSETS / "config.json").read_text("utf-8"))
    weights = base64.b64encode((ASSETS / "model.safetensors").read_bytes()).decode()
    joined_page.evaluate(SET_UP, {"config": config, "weights": weights})
    return joined_page


# In the page: a new LiveSource, a new Selection, and an empty element #view.
LIVE = """
({ styles, ...parts }) => {
  document.head.append(Object.assign(document.createElement("style"), { textContent: styles }));
  document.documentElement.lang = "en";
  document.body.innerHTML = '<main id="view"></main>';
  const weights = Uint8Array.from(atob(parts.weights), (letter) => letter.charCodeAt(0));
  const { LiveSource } = modules["source/live.js"];
  const { Selection } = modules["views/selection.js"];
  window.newSource = () => new LiveSource({ ...parts, weights });
  window.newSelection = () => new Selection();
  window.toText = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  };
  window.finish = async (source, run) => {
    for await (const _ of source.step(run));
    return run;
  };
}
"""


@pytest.fixture(scope="module")
def live_page(open_script, vocabulary: str):
    """A page with the styles, `newSource()` (nano in the page), `newSelection()` and
    `finish(source, run)`."""
    page = open_script(join_modules(read_modules()))
    parts = {
        "config": json.loads((ASSETS / "config.json").read_text("utf-8")),
        "weights": base64.b64encode((ASSETS / "model.safetensors").read_bytes()).decode(),
        "vocabulary": vocabulary,
        "gallery": build_gallery_data(),
        "styles": read_styles(),
    }
    page.evaluate(LIVE, parts)
    return page


@pytest.fixture(scope="session")
def find_violations():
    """find_violations(page) -> what axe-core finds in #view or the page, as lines; for each theme.

    Violations of the light and the dark theme, with the element and what axe measured.
    """

    def find(page, context: str | None = "#view") -> list[str]:
        lines = list[str]()
        for theme in ("light", "dark"):
            page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
            found = Axe().run(page, context=context).response["violations"]
            lines += [
                f"{theme}: {each['id']}: {node['html'][:200]} {node['failureSummary']}"
                for each in found
                for node in each["nodes"]
            ]
        page.evaluate("() => delete document.documentElement.dataset.theme")
        return lines

    return find


@pytest.fixture(scope="module")
def lab() -> Lab:
    return oss_lab.load("nano", device="cpu", kernels="reference", verbose=False)


@pytest.fixture(scope="session")
def to_array():
    """to_array(text, shape) -> the array whose bytes `toText` encoded."""

    def convert(text: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)

    return convert


@pytest.fixture(scope="session")
def encoding() -> tiktoken.Encoding:
    """nano's vocabulary in Python."""
    return load_vocabulary("nano")


@pytest.fixture(scope="session")
def vocabulary() -> str:
    """The file that the tokenizer in JavaScript reads."""
    return (ASSETS / "nano.tiktoken").read_text("ascii")


@pytest.fixture(scope="session")
def grammar() -> Iterator[ModuleType]:
    """The test module with the generator of well-formed Harmony streams and of their changes."""
    path = Path(__file__).parents[1] / "lab" / "test_harmony_grammar.py"
    spec = importlib.util.spec_from_file_location("harmony_grammar", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
