"""The views in a real JupyterLab: asked, canceled, saved and reopened, in both themes.

No request may leave the machine.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

pytestmark = pytest.mark.browser

LOAD = (
    "import oss_lab\nfrom oss_widgets import Chat, Experts\n"
    "lab = oss_lab.load('nano', verbose=False)"
)
LOOPBACK = ("127.0.0.1", "localhost", "")
ANSWER = ".jp-OutputArea-output .oss-chat"


def write_notebook(folder: Path, *cells: str) -> Path:
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    path = folder / "views.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def open_watched(open_notebook) -> Iterator:
    """open_watched(path) -> the page; the test fails if it asks another machine for something."""
    left: list[str] = []

    def open_page(notebook: Path):
        page = open_notebook(notebook)

        def watch(request) -> None:
            if urlsplit(request.url).hostname not in (*LOOPBACK, None):
                left.append(request.url)

        page.on("request", watch)
        return page

    yield open_page
    assert left == []


@pytest.fixture
def open_and_run(open_watched, run_all, error_texts):
    """open_and_run(path) -> the page, after all cells have run without an error."""

    def open_page(path: Path):
        page = open_watched(path)
        run_all(page)
        assert error_texts(page) == []
        return page

    return open_page


def ask(chat, effort: str) -> None:
    chat.get_by_role("radio", name=effort, exact=True).click()


def test_a_toggle_asks_again_and_the_saved_notebook_shows_the_last_reply(
    open_watched, open_and_run, notebook_folder: Path, lab_server
) -> None:
    cell = "chat = Chat(lab, 'What is 347 * 62?', effort='low')\nchat"
    path = write_notebook(notebook_folder, LOAD, cell, "Experts(chat)")
    page = open_and_run(path)
    chat = page.locator(ANSWER)
    chat.get_by_text("22054").first.wait_for()  # what nano guesses at low effort
    assert not page.locator(".oss-stored").first.is_visible()
    ask(chat, "medium")
    chat.get_by_text("21514").first.wait_for()
    page.locator(".jp-OutputArea-output .oss-experts canvas").first.wait_for()
    assert "21514" in wait_for_copy(page, "21514")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Save Notebook(?! As)")).first.click()
    saved = wait_for_file(path, page, "21514")
    assert "22054" not in saved
    page.close()
    lab_server.shut_down_kernels()
    again = open_watched(path)
    copy = again.locator(".oss-stored").first
    copy.wait_for()
    assert "21514" in copy.inner_text()


def wait_for_copy(page, text: str) -> str:
    """The stored copy of the first view once it contains a text; it is hidden while it is live."""
    page.wait_for_function(
        "text => document.querySelector('.oss-stored')?.textContent.includes(text)", arg=text
    )
    return page.locator(".oss-stored").first.text_content()


def wait_for_file(path: Path, page, text: str) -> str:
    """The text of the outputs in the notebook on disk, once it contains `text`."""
    for _ in range(300):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        found = re.sub("<[^>]*>", "", json.dumps([cell["outputs"] for cell in cells]))
        if text in found:
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"{text} was not saved")


def test_a_function_of_the_notebook_is_run_and_its_call_opens_by_key(
    open_and_run, notebook_folder: Path
) -> None:
    define = "def calculator(expression: str) -> str:\n    'Evaluates.'\n    return '4256460'"
    cell = "Chat(lab, 'What is 4815 * 884?', effort='medium', tools=[calculator])"
    page = open_and_run(write_notebook(notebook_folder, LOAD, define, cell))
    line = page.locator(f"{ANSWER} .oss-chat-call summary")
    called = r"commentary: call of functions.calculator 4815\*884 → 4256460, .* ms"
    assert re.fullmatch(called, line.inner_text())
    line.focus()
    page.keyboard.press("Enter")
    page.locator(ANSWER).get_by_text('"expression": "4815*884"').wait_for()
    copy = page.locator(".oss-stored details", has_text="functions.calculator").first
    assert "4256460" in copy.text_content()


def test_a_reply_is_canceled_and_the_view_stays_usable(open_and_run, notebook_folder: Path) -> None:
    cell = "chat = Chat(lab, 'What is 347 * 62?', effort='high', ask=False)\nchat"
    page = open_and_run(write_notebook(notebook_folder, LOAD, cell))
    chat = page.locator(ANSWER)
    chat.get_by_role("button", name="Ask").click()
    chat.get_by_role("button", name="Cancel").click()
    chat.get_by_text(re.compile("Canceled after")).first.wait_for(state="attached")
    ask(chat, "low")
    chat.get_by_text("22054").first.wait_for()


def test_an_expert_is_selected_and_left_out_and_the_answer_changes(
    open_and_run, notebook_folder: Path
) -> None:
    """Without expert 27 of layer 0 the answer is another one; without its null it is the same."""
    cells = ("chat = Chat(lab, 'What is 58 * 7?', effort='high')\nchat", "Experts(chat)")
    page = open_and_run(write_notebook(notebook_folder, LOAD, *cells))
    page.locator(ANSWER).get_by_text("406").first.wait_for()
    experts = page.locator(".jp-OutputArea-output .oss-experts")
    number = page.locator(".oss-experts-number", has_text=re.compile("^27$"))
    experts.locator(".oss-experts-bars button", has=number).first.click()
    experts.get_by_role("button", name="Ask again without it").click()
    experts.get_by_role("button", name="Compare its experts").nth(1).wait_for()
    experts.get_by_text("The change alters the answer; the null does not.").wait_for()
    unchanged, changed, null = experts.locator(".oss-experts-answer").all_inner_texts()
    assert (unchanged, null) == ("406", "406")
    assert changed != "406"


def test_keys_in_a_view_are_not_commands_of_jupyterlab(open_and_run, notebook_folder: Path) -> None:
    cell = "chat = Chat(lab, 'What is 3 * 4?', effort='low')\nchat"
    page = open_and_run(write_notebook(notebook_folder, LOAD, cell))
    chat = page.locator(ANSWER)
    slider = chat.get_by_label("Go back to token")
    last = int(slider.input_value())
    slider.focus()
    for key in ("ArrowLeft", "ArrowLeft", "d", "d"):
        page.keyboard.press(key)
    assert int(slider.input_value()) == last - 2
    chat.get_by_role("button", name="Continue from here").focus()
    page.keyboard.press("Enter")
    chat.get_by_text("Runs (2)").wait_for()
    assert page.locator(".jp-CodeCell").count() == 2


@pytest.fixture
def dark_theme(lab_server) -> Iterator[None]:
    """JupyterLab starts with its dark theme."""
    change_theme(lab_server, "JupyterLab Dark")
    yield
    change_theme(lab_server, "JupyterLab Light")


def change_theme(lab_server, name: str) -> None:
    request = Request(
        f"{lab_server.url}lab/api/settings/@jupyterlab/apputils-extension:themes",
        data=json.dumps({"raw": json.dumps({"theme": name})}).encode(),
        headers={"Authorization": f"token {lab_server.token}"},
        method="PUT",
    )
    with urlopen(request, timeout=60):
        pass


def test_the_views_follow_jupyterlabs_dark_theme(
    dark_theme, open_and_run, notebook_folder: Path
) -> None:
    cell = "Chat(lab, 'What is 3 * 4?', effort='low')"
    page = open_and_run(write_notebook(notebook_folder, LOAD, cell))
    view = page.locator(ANSWER)
    view.wait_for()
    assert page.locator("body").get_attribute("data-jp-theme-light") == "false"
    color = view.evaluate("element => getComputedStyle(element).backgroundColor")
    assert color == "rgb(17, 19, 21)"


def test_a_view_hears_python_after_its_script_took_long_to_load(
    open_watched, run_all, notebook_folder: Path
) -> None:
    """anywidget waits two seconds for the script, then holds back every message of Python."""
    cell = "chat = Chat(lab, 'What is 347 * 62?', effort='low')\nchat"
    page = open_watched(write_notebook(notebook_folder, LOAD, cell))
    page.evaluate(
        """() => {
            window.isLate = false;
            AbortSignal.timeout = () => {
                const late = new AbortController();
                queueMicrotask(() => late.abort());
                window.isLate = true;
                return late.signal;
            };
        }"""
    )
    run_all(page)
    chat = page.locator(ANSWER)
    ask(chat, "medium")
    chat.get_by_text("21514").first.wait_for()
    assert page.evaluate("window.isLate")


def test_a_map_is_painted_again_when_the_theme_changes(
    lab_server, open_and_run, notebook_folder: Path
) -> None:
    cells = ("chat = Chat(lab, 'What is 3 * 4?', effort='low')", "Experts(chat)")
    page = open_and_run(write_notebook(notebook_folder, LOAD, *cells))
    page.locator(".oss-experts canvas").first.wait_for()
    wait_for_row_names(page, 0, 100)
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    try:
        page.locator(".lm-Menu-item", has_text=re.compile("^JupyterLab Dark$")).first.click()
        wait_for_row_names(page, 155, 255)
    finally:
        change_theme(lab_server, "JupyterLab Light")


def wait_for_row_names(page, darkest: int, lightest: int) -> None:
    """Wait until the names of the map's rows, on its left, are painted in a gray of this range."""
    page.wait_for_function(
        """([darkest, lightest]) => {
            const canvas = document.querySelector(".oss-experts canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, 50, canvas.height);
            const painted = [];
            for (let n = 0; n < data.length; n += 4) if (data[n + 3] > 200) painted.push(data[n]);
            return painted.length && painted.every((gray) => darkest <= gray && gray <= lightest);
        }""",
        arg=[darkest, lightest],
    )
