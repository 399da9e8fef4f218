"""Exercises of 16_serving: read a stream of events, continue after a call, map an effort."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from oss_lab.course.exercise import Exercise, Sheet

ADDED = "response.output_item.added"
THOUGHT = "response.reasoning_text.delta"
TEXT = "response.output_text.delta"
CALL = "response.function_call_arguments.delta"


def my_channels(chunks):
    """The text of each channel, from the server-sent events of a response.

    chunks: bytes as they arrive. A chunk may end anywhere, also inside a character. Events are
    blocks, with a blank line after each. A block has a line `data: JSON`; its other lines can be
    ignored. The field "type" of the data is one of

    "response.output_item.added": the item number "output_index" begins. "item" has a "type", such
        as "reasoning" or "message". A message has a "phase", "commentary" or "final_answer".
    "response.reasoning_text.delta", "response.output_text.delta": "delta" is the next piece of the
        text of the item number "output_index".

    or another one, which adds nothing.
    Returns {"analysis": text, "commentary": text, "final": text}.
    """
    texts = {"analysis": "", "commentary": "", "final": ""}
    phases = {"commentary": "commentary", "final_answer": "final"}
    channels = {}
    for line in b"".join(chunks).decode().split("\n"):
        if not line.startswith("data: "):
            continue
        data = json.loads(line.removeprefix("data: "))
        if data["type"] == "response.output_item.added":
            item = data["item"]
            is_thought = item["type"] == "reasoning"
            channels[data["output_index"]] = (
                "analysis" if is_thought else phases.get(item.get("phase"))
            )
        elif data["type"] in ("response.reasoning_text.delta", "response.output_text.delta"):
            texts[channels[data["output_index"]]] += data["delta"]
    return texts


def read_blocks(text: str) -> Iterator[dict[str, Any]]:
    """The data of the complete events in a text."""
    for block in text.split("\n\n")[:-1]:
        for line in block.split("\n"):
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def sort_texts(events, find_channel: Callable[[dict[str, Any], dict[str, Any]], str | None]):
    """The texts by channel, where find_channel(event, item) names the channel of a delta."""
    texts, items = {"analysis": "", "commentary": "", "final": ""}, {}
    for data in events:
        if data["type"] == ADDED:
            items[data["output_index"]] = data["item"]
        elif "delta" in data:
            channel = find_channel(data, items[data["output_index"]])
            if channel is not None:
                texts[channel] += data["delta"]
    return texts


def name_channel(data, item):
    """The channel of a delta."""
    if data["type"] not in (THOUGHT, TEXT):
        return None
    is_comment = item.get("phase") == "commentary"
    return "analysis" if item["type"] == "reasoning" else "commentary" if is_comment else "final"


def each_chunk_read_alone(chunks):
    """You read each chunk by itself, so an event that is cut by the end of a chunk is lost. Join
    the bytes first.
    """
    whole = re.compile(r"^data: (\{.*\})\n\n", re.MULTILINE)
    found = (each for chunk in chunks for each in whole.findall(chunk.decode(errors="ignore")))
    events, known = [], set()
    for data in map(json.loads, found):
        known |= {data["output_index"]} if data["type"] == ADDED else set()
        events += [data] if data.get("output_index") in known else []
    return sort_texts(events, name_channel)


def each_chunk_decoded_alone(chunks):
    """You decode each chunk by itself, so a character that is cut by the end of a chunk becomes
    `�`. Join the bytes first.
    """
    text = "".join(chunk.decode(errors="replace") for chunk in chunks)
    return sort_texts(read_blocks(text), name_channel)


def done_added_too(chunks):
    """You also add the text of the `done` events. It repeats what the deltas have brought, so
    everything is there twice.
    """
    events = [
        {**data, "type": data["type"].replace("done", "delta"), "delta": data["text"]}
        if data["type"].endswith("text.done")
        else data
        for data in read_blocks(b"".join(chunks).decode())
    ]
    return sort_texts(events, name_channel)


def reasoning_in_the_answer(chunks):
    """You add the reasoning to the answer. It is the chain of thought, on the channel
    `analysis`.
    """
    texts = my_channels(chunks)
    return texts | {"analysis": "", "final": texts["analysis"] + texts["final"]}


def phase_ignored(chunks):
    """You do not look at the phase of a message. With the phase `commentary`, it is what the model
    says before a call, and not the answer.
    """
    texts = my_channels(chunks)
    return texts | {"commentary": "", "final": texts["commentary"] + texts["final"]}


def arguments_added(chunks):
    """You add the arguments of calls. They are for a program: a call has no text for a reader."""

    def find(data, item):
        return "commentary" if data["type"] == CALL else name_channel(data, item)

    return sort_texts(read_blocks(b"".join(chunks).decode()), find)


def channel_by_number(chunks):
    """You take the first item for the reasoning and the next one for the answer. A response may
    have any number of items in any order: `output_item.added` says what each one is.
    """
    order = ("analysis", "final")

    def find(data, item):
        number = data["output_index"]
        return order[min(number, 1)] if data["type"] in (THOUGHT, TEXT) else None

    return sort_texts(read_blocks(b"".join(chunks).decode()), find)


def only_the_last_item(chunks):
    """You begin a new text with each item, so an earlier message on the same channel is lost."""
    events, last = list(read_blocks(b"".join(chunks).decode())), dict[str | None, int]()
    for data in events:
        if data["type"] == ADDED and data["item"]["type"] != "function_call":
            last[name_channel({"type": TEXT}, data["item"])] = data["output_index"]

    def find(data, item):
        channel = name_channel(data, item)
        return channel if last.get(channel) == data["output_index"] else None

    return sort_texts(events, find)


def write_events(*items: tuple[str, str]) -> bytes:
    """The stream of a response; an item is a kind and its text, sent in pieces of 2 characters."""
    events: list[dict[str, Any]] = [{"type": "response.created"}]
    for number, (kind, text) in enumerate(items):
        is_message = kind in ("commentary", "final_answer")
        item = {"type": "message", "phase": kind} if is_message else {"type": kind}
        name = {"reasoning": THOUGHT, "function_call": CALL}.get(kind, TEXT)
        place = {"output_index": number}
        events.append({"type": ADDED, **place, "item": item})
        pieces = [text[n : n + 2] for n in range(0, len(text), 2)]
        events += [{"type": name, **place, "delta": piece} for piece in pieces]
        events.append({"type": name.replace("delta", "done"), **place, "text": text})
        events.append({"type": "response.output_item.done", **place, "item": item})
    events.append({"type": "response.completed"})
    blocks = (f"event: {e['type']}\ndata: {json.dumps(e, ensure_ascii=False)}\n\n" for e in events)
    return "".join(blocks).encode()


def channels_cases() -> Iterator[tuple[list[bytes]]]:
    think, call = ("reasoning", "2+3=5\n"), ("function_call", '{"a": 2}')
    say, answer = ("commentary", "I add."), ("final_answer", "It is 5.")
    for items in (
        (think, answer),
        (answer,),
        (think, say, call),
        (think, call),
        (think, say, think, answer),
        (say, think, answer),
        (think, ("final_answer", "")),
    ):
        yield ([write_events(*items)],)
    for size in (40, 7, 1):
        stream = write_events(("reasoning", "é 🙂 ü"), ("final_answer", "data: 人\n\n🙂"))
        yield ([stream[n : n + size] for n in range(0, len(stream), size)],)


def my_next_input(output, results):
    """What a client appends to the conversation after calls, if the server stores nothing.

    output: the items of the response, as dictionaries with a "type"; an item of the type
        "function_call" has an "id", a "call_id", a "name" and "arguments". results: what your
        functions returned, by call_id; a text, or a value that `json.dumps` can write.
    Returns the items of the response, then one item for each call, in the order of the calls:
    {"type": "function_call_output", "call_id": ..., "output": text}. A value that is not a text is
    written as JSON.
    """
    outputs = []
    for item in output:
        if item["type"] == "function_call":
            result = results[item["call_id"]]
            text = result if isinstance(result, str) else json.dumps(result)
            found = {"type": "function_call_output", "call_id": item["call_id"], "output": text}
            outputs.append(found)
    return [*output, *outputs]


def change_outputs(output, results, change: Callable[[dict[str, Any]], dict[str, Any]]):
    """The next input, with each output of a call changed."""
    items = my_next_input(output, results)
    return [change(i) if i["type"] == "function_call_output" else i for i in items]


def reasoning_dropped(output, results):
    """You drop the reasoning. The turn is still open, and the model needs its thinking: without it,
    long tasks with tools fail.
    """
    return [each for each in my_next_input(output, results) if each["type"] != "reasoning"]


def calls_dropped(output, results):
    """You drop the calls. An output without its call answers nothing, and the server refuses it."""
    return [each for each in my_next_input(output, results) if each["type"] != "function_call"]


def only_the_outputs(output, results):
    """You send only the outputs. That is enough with `previous_response_id`; a server that stores
    nothing needs the items of the response, too.
    """
    return my_next_input(output, results)[len(output) :]


def messages_dropped(output, results):
    """You drop the messages. What the model said before a call is a part of the turn."""
    return [each for each in my_next_input(output, results) if each["type"] != "message"]


def id_of_the_item(output, results):
    """You use the id of the item. An output names its call by `call_id`."""
    ids = {each.get("call_id"): each.get("id") for each in output}
    return change_outputs(output, results, lambda i: {**i, "call_id": ids[i["call_id"]]})


def value_not_written(output, results):
    """You send the value itself. `output` is a text: write other values as JSON."""
    return change_outputs(output, results, lambda i: {**i, "output": results[i["call_id"]]})


def texts_quoted(output, results):
    """You write texts as JSON, too, so they get quotation marks. A text is sent unchanged."""
    return change_outputs(
        output, results, lambda i: {**i, "output": json.dumps(results[i["call_id"]])}
    )


def python_instead_of_json(output, results):
    """You write values with `str`. That is Python's spelling: `True` and `None` are not JSON."""
    return change_outputs(output, results, lambda i: {**i, "output": str(results[i["call_id"]])})


def order_of_the_results(output, results):
    """You write the outputs in the order in which your functions returned. Take the order of the
    calls.
    """
    items = my_next_input(output, results)
    outputs = {each["call_id"]: each for each in items[len(output) :]}
    return [*output, *(outputs[each] for each in results if each in outputs)]


def each_output_after_its_call(output, results):
    """You put each output directly after its call. The model wrote all calls before it saw an
    output: first the items of the response, then the outputs.
    """
    items = my_next_input(output, results)
    outputs = {each["call_id"]: each for each in items[len(output) :]}
    pairs = ([each, outputs[each["call_id"]]] if each["type"] == "function_call" else [each]
             for each in output)  # fmt: skip
    return [each for pair in pairs for each in pair]


def next_input_cases() -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    def thought() -> dict[str, Any]:
        content = [{"type": "reasoning_text", "text": "Add them."}]
        return {"type": "reasoning", "id": "rs_1", "content": content}

    def said() -> dict[str, Any]:
        return {"type": "message", "id": "msg_1", "phase": "commentary", "content": "Two sums."}

    def call(number: int) -> dict[str, Any]:
        ids = {"id": f"fc_{number}", "call_id": f"call_{number}"}
        return {"type": "function_call", **ids, "name": "add", "arguments": "{}"}

    yield [thought(), call(1)], {"call_1": "5"}
    yield [call(1)], {"call_1": 5}
    yield [thought(), said(), call(1), call(2)], {"call_2": "b", "call_1": "a"}
    yield [thought(), call(1), thought(), call(2)], {"call_1": True, "call_2": {"sum": None}}
    yield [call(1)], {"call_1": "", "call_0": "old"}
    yield [said(), call(7)], {"call_7": [1, "é"]}


def my_effort(asked):
    """What a server of gpt-oss answers to an effort of the API, and how much the model thinks.

    asked: "none", "minimal", "low", "medium", "high", "xhigh" or "max"; None if the request has no
        effort; or any other text. gpt-oss has learned low, medium and high.
    Returns (status, effort, note). The status is 200, or 400 if the API has no such effort; then
    the effort and the note are None. The effort is the closest one of gpt-oss, or None for the
    default of the server. The note is "max was mapped to high", with these two efforts, if they
    differ, and otherwise None.
    """
    if asked is None:
        return 200, None, None
    closest = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
    closest |= {each: each for each in ("low", "medium", "high")}
    if asked not in closest:
        return 400, None, None
    effort = closest[asked]
    return 200, effort, None if effort == asked else f"{asked} was mapped to {effort}"


def mapped_silently(asked):
    """You map an effort without a note. The client then believes that it got what it wanted."""
    return (*my_effort(asked)[:2], None)


def note_for_every_effort(asked):
    """You write a note also if nothing was changed. Such notes hide the ones that matter."""
    status, effort, _ = my_effort(asked)
    return status, effort, effort and f"{asked} was mapped to {effort}"


def only_three_efforts(asked):
    """You refuse the efforts that gpt-oss lacks. They are valid in the API, and many clients send
    them: answer with the closest one.
    """
    return my_effort(asked) if asked in (None, "low", "medium", "high") else (400, None, None)


def anything_is_medium(asked):
    """You take medium for an unknown effort. A misspelled one would change the reply without a
    word: refuse it.
    """
    found = my_effort(asked)
    return found if found[0] == 200 else (200, "medium", f"{asked} was mapped to medium")


def others_are_medium(asked):
    """You map every effort that gpt-oss lacks to medium. The closest one of `max` is high, and that
    of `none` is low.
    """
    status, effort, note = my_effort(asked)
    return (status, "medium", f"{asked} was mapped to medium") if note else (status, effort, note)


def none_is_no_effort(asked):
    """You take "none" for a request without an effort. It asks for as little thinking as possible;
    the default of the server may be more.
    """
    return my_effort(None if asked == "none" else asked)


def default_is_medium(asked):
    """You choose medium if the request has no effort. What the default is, the server decides."""
    return my_effort(asked) if asked is not None else (200, "medium", None)


def missing_is_an_error(asked):
    """You refuse a request without an effort. The field is optional."""
    return my_effort(asked) if asked is not None else (400, None, None)


def effort_cases() -> Iterator[tuple[str | None]]:
    for asked in ("none", "minimal", "low", "medium", "high", "xhigh", "max", None):
        yield (asked,)
    for asked in ("extreme", "", "High", "lowest"):
        yield (asked,)


SHEET = Sheet(
    lesson="16_serving",
    title="Exercises: serving",
    text="Read [16_serving](../16_serving.ipynb) first.",
    exercises=(
        Exercise(
            title="Read a stream of events",
            text=(
                "Collect the text of each channel from the bytes of a stream. The network cuts them"
                " where it likes."
            ),
            solution=my_channels,
            cases=channels_cases,
            imports="import json",
            misconceptions=(
                each_chunk_read_alone,
                each_chunk_decoded_alone,
                done_added_too,
                reasoning_in_the_answer,
                phase_ignored,
                arguments_added,
                channel_by_number,
                only_the_last_item,
            ),
            hints=(
                "First make one text of the bytes. Then go through its lines, and remember which"
                " item has which channel.",
                'After `line.removeprefix("data: ")`, `json.loads` gives a dict. Keep a dict from'
                " output_index to the name of a channel.",
                "For output_item.added, store the channel: analysis for reasoning, else by the"
                " phase. For the two deltas, append `delta` to the text of the stored channel.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="Continue after calls",
            text=(
                "Your program ran the functions that a response called. Write what the next request"
                " must add to the conversation, for a server that stores nothing."
            ),
            solution=my_next_input,
            cases=next_input_cases,
            imports="import json",
            misconceptions=(
                reasoning_dropped,
                calls_dropped,
                only_the_outputs,
                messages_dropped,
                id_of_the_item,
                value_not_written,
                texts_quoted,
                python_instead_of_json,
                order_of_the_results,
                each_output_after_its_call,
            ),
            hints=(
                "Everything that the model wrote in this turn belongs to the prompt of its next"
                " reply.",
                "The result is a list: all of `output`, and one dict for each item of the type"
                ' "function_call".',
                "For each call take results[item['call_id']]; keep a str, write anything else with"
                " `json.dumps`; append type, call_id and output. Return [*output, *outputs].",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="Map an effort",
            text=(
                "The API has more efforts than the model. Answer with the closest one, say so, and"
                " refuse what does not exist."
            ),
            solution=my_effort,
            cases=effort_cases,
            misconceptions=(
                mapped_silently,
                note_for_every_effort,
                only_three_efforts,
                anything_is_medium,
                others_are_medium,
                none_is_no_effort,
                default_is_medium,
                missing_is_an_error,
            ),
            hints=(
                "There are three kinds of requests: without an effort, with one that the API has,"
                " and with one that it does not have.",
                "A dict with seven keys maps the efforts of the API to three values.",
                "None: (200, None, None). Not in the dict: (400, None, None). Otherwise 200, the"
                " value, and a note if the value is not what was requested.",
            ),
            minutes=5,
            difficulty=1,
        ),
    ),
)
