"""A live view as HTML: an element that names the view, around a copy for readers without scripts.

`js/page/book.js` reads the element.
"""

import json
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

CLASS = "oss-live"
NOTE = "<p>A stored copy. With JavaScript, nano runs here.</p>"


@dataclass(frozen=True)
class LiveView:
    """One view of nano running in the page.

    Attributes:
        view: its name in `js/views/registry.js`.
        source: views of one page with the same source share runs and selection.
        request: what is asked at once, as a Request of `js/source/source.js`; nothing if its
            question is empty.
        selection: what is selected once the reply is finished, or None.
    """

    view: str
    source: str
    request: dict[str, Any]
    selection: dict[str, Any] | None = None

    def open_tag(self) -> str:
        """The start of the element; a copy and `</div>` follow."""
        data = escape(json.dumps(asdict(self)))
        return f'<div class="{CLASS}" data-live="{data}">{NOTE}'
