"""Settings of Sphinx for the book; `make book` runs it. Nothing is executed and nothing fetched."""

from oss_lab.version import __version__

project = "oss_lab"
author = "the oss_lab authors"
copyright = "the oss_lab authors"
release = __version__
language = "en"
root_doc = "index"
extensions = ["myst_nb", "oss_widgets.book.extension"]

nb_execution_mode = "off"  # pages show the outputs that the notebooks store
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "oss_lab"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_math_renderer = "mathml"
html_show_search_summary = False  # it would read pages, which a browser refuses for files
html_use_index = False  # it would repeat the glossary
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
