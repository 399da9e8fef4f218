"""The JavaScript and the styles that every view sends to the front end: read and joined once."""

from functools import cache

from oss_widgets.join import join_modules, read_modules, read_styles

ENTRY = "widget.js"

# In JupyterLab the stored copy of a view is hidden while the view itself is there.
STORED = """
.jp-OutputArea:has(.oss-widget) .jp-OutputArea-child:has(.oss-stored) { display: none; }
"""


@cache
def read_script() -> str:
    """One ES module that exports `render`, as anywidget takes it."""
    joined = join_modules(read_modules(), [ENTRY])
    return f'{joined}\nexport default {{ render: modules["{ENTRY}"].render }};\n'


@cache
def read_css() -> str:
    """The styles of all views."""
    return read_styles() + STORED
