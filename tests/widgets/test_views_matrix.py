"""Every view, of nano in the page and of a stored trace, wide and narrow, in both themes.

Nothing may violate axe-core's rules, and nothing may be wider than the window. The trace has tokens
that read like markup.
"""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from oss_lab.record.trace import Trace

POINTS = [
    "moe.expert_ids", "moe.expert_weights", "moe.router_logits", "attn.pattern", "attn.sink_mass",
    "out.top_ids", "out.top_logprobs",
]  # fmt: skip
MARKUP = '<img src="x" onerror="document.title=1">'
VIEWS = [
    "chat", "tokens", "experts", "attention", "lens", "microscope", "attribution", "commitment",
    "effort_lens", "branches",
]  # fmt: skip
OPEN = """async ([view, trace]) => {
  window.shown?.close();
  document.querySelector("#view").replaceChildren();
  for (const name of ["h1", "h2"]) { // a view is a part of a page's section
    const heading = document.createElement(name);
    heading.textContent = "A page";
    document.querySelector("#view").append(heading);
  }
  if (trace) {
    const bytes = Uint8Array.from(atob(trace), (letter) => letter.charCodeAt(0));
    window.source = new modules["source/trace.js"].TraceSource(bytes);
  } else if (!window.source || source.kind !== "live") {
    window.source = newSource();
    const question = "What is 58 * 7?";
    source.show(await finish(source, await source.ask({ question, effort: "high" })));
  }
  window.selection = newSelection();
  const element = document.querySelector("#view");
  window.shown = modules["views/registry.js"].VIEWS[view](element, source, selection);
  await new Promise((resume) => setTimeout(resume, 200));
  selection.set({ token: source.shown.tokens.length - 3, layer: 1, head: 2, expert: 3 });
}"""


@pytest.fixture(scope="module")
def trace(lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trace file as text; one of its tokens reads like markup, others are in other scripts."""
    recorded: Trace = lab.trace(lab.chat("What is 58 * 7?", effort="medium"), POINTS)
    texts = [MARKUP, "漢字", "مرحبا", "🙂", "\n"]
    labels = [
        replace(label, text=texts[n % 5]) if label.part == "content" and n % 7 == 0 else label
        for n, label in enumerate(recorded.labels)
    ]
    assert any(label.text == MARKUP for label in labels)
    path: Path = tmp_path_factory.mktemp("trace") / "run.safetensors"
    replace(recorded, labels=tuple(labels)).save(path)
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("source", ["live", "trace"])
@pytest.mark.parametrize("view", VIEWS)
def test_view(live_page, find_violations, trace, view, source, width) -> None:
    live_page.set_viewport_size({"width": width, "height": 900})
    live_page.evaluate(OPEN, [view, trace if source == "trace" else None])
    live_page.wait_for_timeout(800)  # until what was requested is drawn
    assert live_page.locator(".oss-view").inner_text().strip()
    assert live_page.evaluate("document.documentElement.scrollWidth") <= width
    assert find_violations(live_page) == []
    assert live_page.title() == ""
    assert live_page.locator("#view img").count() == 0
