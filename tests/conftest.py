"""A Chromium for tests in a browser. Without Chromium or Playwright they are skipped, with the
reason.
"""

import shutil

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = [  # no background traffic, no first-run pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium():
    """A Playwright Browser that runs the Chromium installed on this machine.

    It ends with its module: until then Playwright has a running event loop in this thread, where
    the tests of another module could not start their own.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (the extra `test` holds it)"
    )
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
