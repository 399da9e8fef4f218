"""What Sphinx needs for the book: the script with nano, live views, the API, and formulas.

Nothing is requested from another host. Formulas become MathML, which browsers draw themselves. The
script with nano is loaded by the pages that have a live view.
"""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.other import TocTree
from sphinx.util.docutils import SphinxDirective
from sphinx.util.matching import patfilter

from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT
from oss_widgets import views
from oss_widgets.book.docstrings import describe_object, describe_value, is_value
from oss_widgets.book.live_view import CLASS, LiveView
from oss_widgets.join import FOLDER, join_modules, read_modules, read_styles
from oss_widgets.page.write import pack_weights, read_nano

ENTRY = "page/book.js"
NAMES = [getattr(views, name).NAME for name in views.__all__]

MISSING = [
    ('role="heading"', r'\g<0> aria-level="2"'),
    ('<aside class="sidebar-drawer"', r'\g<0> aria-label="Pages"'),
    ('<aside class="toc-drawer', r'<aside aria-label="On this page" class="toc-drawer'),
    ('<a href="#" class="back-to-top(?s:.*?)</a>', r'<nav aria-label="Top">\g<0></nav>'),
    ('<div id="search-results">', r"<h1>Search</h1>\g<0>"),
    (r'<th></th>|<th class="head"><p></p></th>', "<td></td>"),
    # What may be wider than the window must scroll with the keyboard.
    # A table of pandas.
    (
        '<table border="1" class="dataframe">(?s:.*?)</table>',
        r'<div class="table-wrapper">\g<0></div>',
    ),
    ('<div class="(table-wrapper|math-wrapper|oss-stored)', r'<div tabindex="0" class="\1'),
    ('<figure class="oss-picture"><div>', '<figure class="oss-picture"><div tabindex="0">'),
    ("<p>(?=<img [^>]*/></p>)", '<p class="oss-picture" tabindex="0">'),
    ('(tag_columns(?s:.*?)ansi notranslate"><div class="highlight"><pre)>', r'\1 tabindex="0">'),
    (r'(-(?!myst-ansi)[\w-]+ notranslate"><div class="highlight"><pre)>', r'\1 tabindex="0">'),
    # A long name may wrap. Otherwise it would hide the next column of a table.
    (r'(?<=<span class="pre">)[^<]{30,}(?=</span>)', lambda name: name[0].replace(".", ".<wbr>")),
]
"""What the theme's pages lack for screen readers, keyboards and narrow windows: a pattern and its
replacement.
"""


class Live(SphinxDirective):
    """A live view; its content is shown to readers without JavaScript.

    ```{live} chat
    :question: What is 347 * 62?
    :effort: high
    :source: first
    ```
    """

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "question": directives.unchanged,
        "instructions": directives.unchanged,
        "effort": lambda text: directives.choice(text, ("low", "medium", "high")),
        "source": directives.unchanged,
        "selection": json.loads,
    }

    def run(self) -> list[nodes.Node]:
        view = directives.choice(self.arguments[0], NAMES)
        names = {"question": "", "effort": DEFAULT_EFFORT["nano"], **self.options}
        source, selection = names.pop("source", f"live-{self.lineno}"), names.pop("selection", None)
        start = LiveView(view, source, names, selection).open_tag()
        copy = self.parse_content_to_nodes()
        return [raw(start), *copy, raw("</div>")]


class Pages(TocTree):
    """A table of contents of all pages that patterns match; nothing if there are none yet."""

    def run(self) -> list[nodes.Node]:
        self.options["glob"] = True
        found = [each for each in self.content if patfilter(self.env.found_docs, each.lstrip("/"))]
        if not found:
            return []
        self.content = StringList(found)
        return super().run()


class Api(SphinxDirective):
    """The public names of a module, from their docstrings: one section each.

    Names that another module, the option `without`, lists as well are left out.
    """

    required_arguments = 1
    option_spec: ClassVar = {"without": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        module = import_module(self.arguments[0])
        other = self.options.get("without")
        left_out = set(import_module(other).__all__) if other else set()
        names = [name for name in module.__all__ if name not in left_out and name[0] != "_"]
        return [
            describe_value(name, value, module.__name__)
            if is_value(value := getattr(module, name))
            else describe_object(name, value)
            for name in names
        ]


def raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def add_files(app: Sphinx, config: Config) -> None:
    """Write the script with nano and the styles of the views; Sphinx copies them to `_static`."""
    folder = Path(app.srcdir) / "_nano"
    folder.mkdir(exist_ok=True)
    code = join_modules(read_modules(), [ENTRY])
    start = f'modules["{ENTRY}"].startBook({json.dumps(read_nano())}, "{pack_weights()}");'
    script = f"(() => {{\n{code}\n{start}\n}})();\n"
    (folder / "nano.js").write_text(script, "utf-8")
    (folder / "views.css").write_text(read_styles(FOLDER / "views"), "utf-8")
    config.html_static_path.append(str(folder))


def add_to_page(app: Sphinx, page: str, template: str, context: Any, doctree: Any) -> None:
    """Load nano in a page with a live view."""
    if f'class="{CLASS}"' in context.get("body", ""):
        app.add_css_file("views.css")
        app.add_js_file("nano.js", loading_method="defer")


def complete_pages(app: Sphinx, error: Exception | None) -> None:
    """Add what the theme leaves out."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text("utf-8")
        for before, after in MISSING:
            text = re.sub(before, after, text)
        page.write_text(text, "utf-8")


def visit_math(translator: Any, node: nodes.Element) -> None:
    is_block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("live", Live)
    app.add_directive("api", Api)
    app.add_directive("pages", Pages)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("config-inited", add_files)
    app.connect("html-page-context", add_to_page)
    app.connect("build-finished", complete_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
