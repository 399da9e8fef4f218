"""The book: the course as a web site whose figures are nano running in the page.

    python -m oss_widgets.book           `make book` runs this

stage.py        collects the sources: lessons, the pages that they link to, the book's own pages
notebook.py     a stored notebook, ready for a page: pictures with a text, live views
live_cells.py   which live view a cell shows, found without running it
live_view.py    a live view as HTML, with a copy for readers without JavaScript
docstrings.py   a docstring as a page's elements
extension.py    what Sphinx needs to know: directives, formulas, and the script with nano

Only this package needs the extra `book`.
"""
