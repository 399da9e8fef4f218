"""Which cells of a notebook become live views of the book, and what their outputs become."""

from typing import Any

import nbformat
import pytest
from oss_widgets.book.live_cells import CellReader, NotLiveError
from oss_widgets.book.live_view import LiveView
from oss_widgets.book.notebook import prepare_notebook

from oss_lab.lab import load

LOAD = 'import oss_lab\nlab = oss_lab.load("nano", verbose=False)'


def read(*cells: str) -> LiveView:
    """The live view of the last cell."""
    reader = CellReader()
    for cell in (LOAD, *cells[:-1]):
        reader.skip(cell)
    (view,) = reader.read(cells[-1])
    return view


def test_a_question_and_its_effort_are_taken_over() -> None:
    view = read('Chat(lab, "What is 708 * 73?", effort="high", maxTokens=50)')
    request = {"question": "What is 708 * 73?", "effort": "high", "maxTokens": 50}
    assert (view.view, view.request) == ("chat", request)


def test_the_default_effort_is_that_of_nano() -> None:
    default = load("nano", verbose=False).effort
    assert read('Chat(lab, "What is 7 * 8?")').request["effort"] == default


def test_a_name_is_followed_and_views_of_one_chat_share_a_source() -> None:
    question = 'question = "What is 58 * 7?"'
    chat = "from oss_widgets import Chat\n\nchat = Chat(lab, question)\nchat"
    first = read(question, chat)
    second = read(question, chat, "import oss_widgets\noss_widgets.Experts(chat)")
    assert first.request["question"] == "What is 58 * 7?"
    assert (second.view, second.source, second.request) == ("experts", first.source, first.request)
    assert read(question, chat, 'Chat(lab, "What is 1 + 1?")').source != first.source


def test_names_that_are_assigned_together_are_followed() -> None:
    together = 'shape, question = lab.config, "What is 58 * 7?"'
    assert read(together, "Chat(lab, question)").request["question"] == "What is 58 * 7?"


def test_a_reply_and_a_selection_are_taken_over() -> None:
    view = read(
        'reply = lab.chat("What is 58 * 7?", effort="low", max_tokens=9)',
        "experts = Experts(reply, lab=lab)",
        'experts.selection = {"token": 80, "layer": 2}\nexperts',
    )
    assert view.request == {"question": "What is 58 * 7?", "effort": "low", "maxTokens": 9}
    assert view.selection == {"token": 80, "layer": 2}


@pytest.mark.parametrize("code", ["Microscope(lab)", 'Chat(lab, "What is 7?", ask=False)'])
def test_a_view_that_asks_nothing_has_no_question(code: str) -> None:
    assert read(code).request["question"] == ""


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["mine = lab.with_parts(router=f)", 'Chat(mine, "What is 7 * 8?")'], "with_parts"),
        (['lab = oss_lab.load("20b")', 'Chat(lab, "What is 7 * 8?")'], "20b"),
        (["if x:\n    lab = f()", 'Chat(lab, "What is 7 * 8?")'], "lab is computed"),
        (['a, b = "1 + 1?", "2 + 2?"', "a, b = f()", "Chat(lab, b)"], "b is computed"),
        (["for chat in chats:\n    pass", "Experts(chat)"], "chat is computed"),
        (["Experts([[[0.5]]])"], "array"),
        (["Experts(numbers)"], "numbers is computed"),
        (['Chat(lab, "What is 7 * 8?", interventions=[])'], "interventions"),
        (['Chat(lab, f"What is {a} * 8?")'], "is computed"),
        (['chat = Chat(lab, "What is 7 * 8?")'], "not a view"),
        (["display(1)"], "not a view"),
        (["%matplotlib inline"], "commands"),
    ],
)
def test_what_cannot_be_live_is_refused_with_a_reason(cells: list[str], reason: str) -> None:
    with pytest.raises(NotLiveError, match=reason):
        read(*cells)


def make_notebook(*cells: tuple[str, list[Any]]) -> Any:
    v4 = nbformat.v4
    made = [v4.new_code_cell(code, outputs=outputs) for code, outputs in cells]
    return v4.new_notebook(cells=made)


def output(**data: str) -> Any:
    return nbformat.v4.new_output(
        "display_data", {key.replace("_", "/"): value for key, value in data.items()}
    )


def announce(text: str) -> Any:
    """The empty place of a widget, which a copy follows."""
    data = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": text}
    return nbformat.v4.new_output("display_data", data)


def test_the_stored_copy_is_inside_the_live_view_and_texts_stay_texts() -> None:
    copy = '<div class="oss-stored">5 &lt; 7</div>'
    outputs = [announce("Chat: a copy follows."), output(text_html=copy)]
    hostile = "\"'></div><script>x()</script>"
    notebook = make_notebook((LOAD, []), (f"Chat(lab, {hostile!r})", outputs))
    assert list(prepare_notebook(notebook)) == ["code cell 2: live chat"]
    (only,) = notebook.cells[1].outputs
    html = only.data["text/html"]
    assert html.endswith(f"{copy}</div>")
    assert "<script>" not in html
    assert html.count("'") == 0


def test_a_cell_may_show_several_views() -> None:
    copies = [output(text_html=f'<div class="oss-stored">{n}</div>') for n in range(2)]
    code = 'chat = Chat(lab, "What is 1 + 1?")\ndisplay(chat, Tokens(chat))'
    notebook = make_notebook((LOAD, []), (code, copies))
    assert list(prepare_notebook(notebook)) == ["code cell 2: live chat, tokens"]
    htmls = [each.data["text/html"] for each in notebook.cells[1].outputs]
    assert ["&quot;tokens&quot;" in html for html in htmls] == [False, True]


def test_what_a_cell_prints_before_its_view_stays() -> None:
    printed = nbformat.v4.new_output("stream", name="stdout", text="9 tokens written\n")
    copy = output(text_html='<div class="oss-stored">a chat</div>')
    notebook = make_notebook((LOAD, []), ('Chat(lab, "1 + 1?")', [printed, announce(""), copy]))
    assert list(prepare_notebook(notebook)) == ["code cell 2: live chat"]
    assert notebook.cells[1].outputs[0] == printed
    assert "a chat</div></div>" in notebook.cells[1].outputs[1].data["text/html"]


def test_more_copies_than_views_stay_copies() -> None:
    copies = [output(text_html=f'<div class="oss-stored">{n}</div>') for n in range(2)]
    notebook = make_notebook((LOAD, []), ('Chat(lab, "1 + 1?")', copies))
    assert list(prepare_notebook(notebook)) == [
        "code cell 2: stored copy, since it has 2 copies of 1 views"
    ]
    assert len(notebook.cells[1].outputs) == 2


def test_a_view_that_is_not_live_keeps_its_copy_and_says_so() -> None:
    copy = output(text_html='<div class="oss-stored">table</div>')
    notebook = make_notebook(("Experts(numbers)", [announce("a table"), copy]))
    (line,) = prepare_notebook(notebook)
    assert line == "code cell 1: stored copy, since numbers is computed"
    (only,) = notebook.cells[0].outputs
    html = only.data["text/html"]
    assert html.startswith("<p><em>A stored copy.")
    assert html.endswith('<div class="oss-stored">table</div>')


@pytest.mark.parametrize(
    ("printed", "captions"), [("", 1), ("Three bars, the\nsecond highest.", 0)]
)
def test_a_picture_has_its_sentence_as_text(printed: str, captions: int) -> None:
    picture = output(image_png="iVBO\n", text_plain="Three bars, the second highest.")
    stream = nbformat.v4.new_output("stream", name="stdout", text=printed)
    notebook = make_notebook(("figure", [stream, picture]))
    assert not list(prepare_notebook(notebook))
    html = notebook.cells[0].outputs[1].data["text/html"]
    assert 'alt="Three bars, the second highest."' in html
    assert html.count("figcaption") == 2 * captions


def test_the_output_of_a_prediction_is_folded() -> None:
    notebook = make_notebook(('reveal("tokens", 3)', []), ('print("reveal(")', []))
    notebook.cells[0].metadata["tags"] = ["hide-output"]
    assert not list(prepare_notebook(notebook))
    assert [cell.metadata.get("tags") for cell in notebook.cells] == [["hide-output"], None]


@pytest.mark.parametrize(
    ("printed", "tags"),
    [
        ("one  5.0  6.1\ntwo  7.0  8.1\n", ["columns"]),
        ("1  The first bug.\n2  The second one.\n", None),
        ("one  5.0  6.1\n", None),
    ],
)
def test_printed_columns_are_marked(printed: str, tags: list[str] | None) -> None:
    stream = nbformat.v4.new_output("stream", name="stdout", text=printed)
    notebook = make_notebook(("show()", [stream]))
    assert not list(prepare_notebook(notebook))
    assert notebook.cells[0].metadata.get("tags") == tags
