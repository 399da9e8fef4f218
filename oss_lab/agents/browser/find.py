"""Find a pattern in a page. A match may continue on the next line, since lines are wrapped."""

import re
from bisect import bisect_right
from itertools import accumulate
from urllib.parse import quote

from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser.page import Page, strip_links

MATCHES = 50
SHOWN = 4  # lines of a match
LONGEST = 300  # characters of a pattern


def find_in_page(page: Page, pattern: str) -> Page:
    """A page with the places where the pattern occurs, each a link to its line.

    Upper and lower case are the same, and so is any white space.

    Raises:
        CallError: the pattern is empty or too long.
    """
    if not pattern.strip() or len(pattern) > LONGEST:
        raise CallError(f"the pattern must have 1 to {LONGEST} characters")
    lines = [strip_links(line) for line in page.lines]
    found = find_lines(lines, pattern)
    parts = [
        f"# 【{number}†match at L{line}】\n" + "\n".join(lines[line : line + SHOWN])
        for number, line in enumerate(found)
    ]
    return Page(
        f"{page.url}/find?pattern={quote(pattern)}" if page.url else "",
        f"Find results for text: `{pattern}` in `{page.title}`",
        "\n\n".join(parts) or f"No `find` results for pattern: `{pattern}`",
        dict.fromkeys(range(len(found)), page.url),
        dict(enumerate(found)),
    )


def find_lines(lines: list[str], pattern: str) -> list[int]:
    """The first line of each match; a match within the lines shown for another is left out."""
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    text = "\n".join(lines)
    found: list[int] = []
    for match in compile_pattern(pattern).finditer(text):
        line = bisect_right(starts, match.start()) - 1
        if not found or line >= found[-1] + SHOWN:
            found.append(line)
        if len(found) == MATCHES:
            break
    return found


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """An expression for this text with any white space, and line breaks between characters."""
    words = pattern.split()
    return re.compile(r"\s+".join(r"\n?".join(map(re.escape, word)) for word in words), re.I)
