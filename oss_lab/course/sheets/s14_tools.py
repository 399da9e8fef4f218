"""Exercises of 14_tools: run a call, the loop with a budget, and the messages of a client."""

import ast
import json
from collections.abc import Callable, Iterator

from oss_lab.course.exercise import Exercise, Sheet
from oss_lab.harmony import Message
from oss_lab.record.reply import ToolCall


def my_run_call(call, tools):
    """Run a call of the model, and return its output as a message.

    call: has `name`, such as "functions.add", `arguments` (a text) and `channel`.
    tools: functions by such a name. A function takes the fields of the arguments as keywords.

    The message is Message.of("tool", text, name=..., channel=..., recipient=...): it has the tool's
    full name and the call's channel, and is for "assistant". A result that is a text stays as it
    is, and any other result becomes JSON, by `json.dumps`. Nothing may be raised. The text is
    "error: unknown tool" if no tool has that name, "error: bad arguments" if the arguments are not
    a JSON object, and f"error: {exception}" if the function raises or its result has no JSON.
    """
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if call.name not in tools:
        text = "error: unknown tool"
    elif not isinstance(arguments, dict):
        text = "error: bad arguments"
    else:
        try:
            result = tools[call.name](**arguments)
            text = result if isinstance(result, str) else json.dumps(result)
        except Exception as error:
            text = f"error: {error}"
    return Message.of("tool", text, name=call.name, channel=call.channel, recipient="assistant")


def change_output(call, tools, **changed):
    """`my_run_call` with other fields of the message."""
    message = my_run_call(call, tools)
    fields = {"name": call.name, "channel": call.channel, "recipient": "assistant"}
    return Message.of("tool", message.text, **(fields | changed))


def output_without_a_name(call, tools):
    """Your output has no name. A tool is the author by its full name, such as `functions.add`: that
    is how the model knows which call is answered.
    """
    return change_output(call, tools, name=None)


def name_without_namespace(call, tools):
    """You leave out `functions.` in the name of the output. The author is called exactly as the
    recipient of the call was.
    """
    return change_output(call, tools, name=call.name.rpartition(".")[2])


def output_for_nobody(call, tools):
    """Your output has no recipient. It is for the assistant, which made the call."""
    return change_output(call, tools, recipient=None)


def output_for_the_tool(call, tools):
    """You send the output to the tool. The tool wrote it: the tool is the author, and the
    assistant the recipient.
    """
    return change_output(call, tools, recipient=call.name)


def output_always_on_commentary(call, tools):
    """Your output is always on `commentary`. It comes back on the channel of its call; the built-in
    tools of gpt-oss are called on `analysis`.
    """
    return change_output(call, tools, channel="commentary")


def result_as_python_text(call, tools):
    """You write a result as Python prints it, such as `True` or `{'a': 1}`. In JSON, which models
    know better, that is `true` and `{"a": 1}`: use `json.dumps`.
    """
    return my_run_call(call, {name: lambda f=f, **a: str(f(**a)) for name, f in tools.items()})


def text_in_quotes(call, tools):
    """You write a text as JSON, with quotes around it. A result that is a text stays as it is."""
    quoted = {name: lambda f=f, **a: json.dumps(f(**a)) for name, f in tools.items()}
    return my_run_call(call, quoted)


def error_not_reported(call, tools):
    """You return an empty output after an error. Write what is wrong: an error is data, and the
    model can correct its call only if it reads why it failed.
    """
    message = my_run_call(call, tools)
    text = "" if message.text.startswith("error: ") else message.text
    fields = {"name": call.name, "channel": call.channel, "recipient": "assistant"}
    return Message.of("tool", text, **fields)


def arguments_read_as_python(call, tools):
    """You read the arguments as Python, and they are JSON: `true` and `null` are not Python.
    Above all, `eval` would run whatever a model wrote. Use `json.loads`.
    """
    try:
        arguments = ast.literal_eval(call.arguments)
    except (ValueError, SyntaxError):
        arguments = None
    return my_run_call(ToolCall(call.name, json.dumps(arguments), call.channel), tools)


def any_json_taken(call, tools):
    """You call the function although the arguments are not a JSON object, but a list or a number.
    Check with `isinstance(arguments, dict)`.
    """
    try:
        is_object = isinstance(json.loads(call.arguments), dict)
    except ValueError:
        is_object = True
    wrapped = call if is_object else ToolCall(call.name, "{}", call.channel)
    return my_run_call(wrapped, tools)


def add(a, b):
    """The sum of two numbers."""
    return a + b


def find(word, exact=True):
    """What is known about a word, or None."""
    if word == "":
        raise ValueError("the word is empty")
    return {"word": word, "exact": exact, "code": None}


def find_object(word):
    """An object that has no JSON."""
    return slice(1)


def run_call_cases() -> Iterator[tuple]:
    for name, arguments, channel in (
        ("functions.add", '{"a": 2, "b": 3}', "commentary"),
        ("functions.add", '{"a": "2", "b": "3"}', "commentary"),
        ("functions.add", '{"a": 2, "b": 3}', "analysis"),
        ("functions.add", '{"a": 2', "commentary"),
        ("functions.add", "[2, 3]", "commentary"),
        ("functions.subtract", '{"a": 2, "b": 3}', "commentary"),
        ("functions.find", '{"word": "moon", "exact": false}', "commentary"),
        ("functions.find", "{'word': 'moon'}", "commentary"),
        ("functions.find", '{"word": ""}', "commentary"),
        ("functions.find_object", '{"word": "moon"}', "commentary"),
        ("browser.find", '{"word": "moon"}', "analysis"),
    ):
        tools = {"functions.add": add, "functions.find": find, "browser.find": find}
        tools["functions.find_object"] = find_object
        yield ToolCall(name, arguments, channel), tools


def my_loop(reply_to, run, messages, most):
    """Let the model call tools until it answers, with at most `most` calls in all.

    reply_to(messages): the model. It returns its reply to these messages, as a list of messages.
    run(call): runs a call, and returns the message of its output.
    A message of a reply is a call if its `recipient` is not None. A reply may have several calls:
    all of the reply is appended first, then the outputs, in the order of the calls.

    Returns (all messages, "answer") after a reply without a call. Returns (all messages, "budget")
    when there is a call left and `most` calls have been run. After its last call, the model is
    still asked.
    """
    messages, made = list(messages), 0
    while True:
        reply = reply_to(messages)
        messages += reply
        calls = [message for message in reply if message.recipient is not None]
        if not calls:
            return messages, "answer"
        for call in calls:
            if made == most:
                return messages, "budget"
            messages.append(run(call))
            made += 1


def loop_by_steps(
    reply_to,
    run,
    messages,
    most,
    *,
    keep=lambda message: True,
    select=lambda calls: calls,
    count=lambda calls: 1,
):
    """`my_loop` with steps that can be replaced."""
    messages, made = list(messages), 0
    while True:
        reply = reply_to(messages)
        messages += filter(keep, reply)
        calls = select([message for message in reply if message.recipient is not None])
        if not calls:
            return messages, "answer"
        for call in calls:
            if made >= most:
                return messages, "budget"
            messages.append(run(call))
            made += count(calls)


def replies_counted(reply_to, run, messages, most):
    """You count replies. The budget is of calls, and one reply can have several."""
    return loop_by_steps(reply_to, run, messages, most, count=lambda calls: 1 / len(calls))


def one_call_too_many(reply_to, run, messages, most):
    """You run one call more than the budget allows. Compare before you run a call, not after."""
    return my_loop(reply_to, run, messages, most + 1)


def no_last_word(reply_to, run, messages, most):
    """You stop as soon as the calls are used up. Ask the model once more: it may answer with what
    it has, and only another call ends the run.
    """
    messages, made = list(messages), 0
    while True:
        reply = reply_to(messages)
        messages += reply
        calls = [message for message in reply if message.recipient is not None]
        if not calls:
            return messages, "answer"
        for call in calls[: most - made]:
            messages.append(run(call))
            made += 1
        if made == most:
            return messages, "budget"


def only_the_first_call(reply_to, run, messages, most):
    """You run only the first call of a reply. The model waits for all their outputs."""
    return loop_by_steps(reply_to, run, messages, most, select=lambda calls: calls[:1])


def calls_not_kept(reply_to, run, messages, most):
    """You append outputs without their calls. The model then reads outputs that nobody called
    for: append the whole reply first.
    """
    return loop_by_steps(reply_to, run, messages, most, keep=lambda each: each.recipient is None)


def reasoning_not_kept(reply_to, run, messages, most):
    """You forget the reasoning between the calls. The turn is still open, and what the model found
    out so far may be nowhere else: append all of the reply.
    """
    return loop_by_steps(reply_to, run, messages, most, keep=lambda m: m.channel != "analysis")


def outputs_between_calls(reply_to, run, messages, most):
    """You put each output right after its call. The calls of one reply were written without seeing
    any output: append the whole reply first, then the outputs.
    """
    messages, made = list(messages), 0
    while True:
        reply = reply_to(messages)
        for message in reply:
            messages.append(message)
            if message.recipient is not None:
                if made == most:
                    return messages, "budget"
                messages.append(run(message))
                made += 1
        if all(message.recipient is None for message in reply):
            return messages, "answer"


def open_calls_lost(reply_to, run, messages, most):
    """You throw away the calls that the budget left over. Keep them: the run can be continued with
    them later.
    """
    found, reason = my_loop(reply_to, run, messages, most)
    calls = [n for n, each in enumerate(found) if each.recipient is not None and is_own(each)]
    open_calls = calls[sum(each.role == "tool" for each in found) :]
    return [each for n, each in enumerate(found) if n not in open_calls], reason


def earlier_rounds_forgotten(reply_to, run, messages, most):
    """You ask with the question and the last round only. Append to the messages, and do not
    replace them: the model sees nothing else.
    """
    question = len(messages)

    def forgetful(messages):
        replies = [n for n, each in enumerate(messages) if each.channel == "analysis"]
        return reply_to([*messages[:question], *messages[replies[-1] if replies else question :]])

    return my_loop(forgetful, run, messages, most)


def is_own(message: Message) -> bool:
    return message.role == "assistant"


MOST_REPLIES = 40  # of a toy model: more than any of the wrong loops needs


class ToyModel:
    """Calls a tool for each of its words, `at_once` per reply, and reports what it has seen."""

    def __init__(self, words: str, at_once: int) -> None:
        self.words, self.at_once, self.asked = words.split(), at_once, 0

    def __call__(self, messages: list[Message]) -> list[Message]:
        self.asked += 1
        if self.asked > MOST_REPLIES:
            raise RuntimeError(
                f"the model was asked over {MOST_REPLIES} times: the loop never ends"
            )
        seen = [each.text for each in messages if each.role == "tool"]
        thoughts = sum(each.channel == "analysis" for each in messages)
        calls = sum(each.recipient is not None and is_own(each) for each in messages)
        note = Message.of("assistant", f"{len(seen)} seen, {thoughts} thoughts", channel="analysis")
        next_words = self.words[len(seen) : len(seen) + self.at_once]
        if not next_words:
            answer = f"{' '.join(seen)} after {calls} calls and {thoughts} thoughts"
            return [note, Message.of("assistant", answer, channel="final")]
        return [note, *map(call_look_up, next_words)]


def call_look_up(word: str) -> Message:
    fields = {"recipient": "functions.look_up", "content_type": "<|constrain|>json"}
    text = json.dumps({"word": word})
    return Message.of("assistant", text, channel="commentary", **fields)


def answer_look_up(call: Message) -> Message:
    """The output of a call: the word in capitals."""
    text = json.loads(call.text)["word"].upper()
    fields = {"name": call.recipient, "channel": "commentary", "recipient": "assistant"}
    return Message.of("tool", text, **fields)


def loop_cases() -> Iterator[tuple[Callable, Callable, list[Message], int]]:
    for words, at_once, most in (
        ("", 1, 3),
        ("moon", 1, 1),
        ("moon gold ship", 1, 3),
        ("moon gold ship", 1, 2),
        ("moon gold ship sun", 2, 4),
        ("moon gold ship sun", 2, 3),
        ("moon", 1, 0),
        ("moon gold", 3, 5),
    ):
        yield ToyModel(words, at_once), answer_look_up, [Message.of("user", f"{words}?")], most


def my_client_messages(chat):
    """The messages of the next prompt, from a chat in the form of OpenAI's clients.

    chat: dictionaries with `role` and `content`, which is a text or None.
        "user": has no other key.
        "assistant": may have `reasoning`, a text, and `tool_calls`, a list such as
            [{"id": "c1", "function": {"name": "add", "arguments": "{}"}}].
        "tool": `tool_call_id` is the id of its call. Outputs may come in any order.

    From a dictionary of the assistant comes the reasoning, on "analysis", then the text, then the
    calls. The text is on "commentary" if there are calls. If there are none it is an answer, on
    "final". A call is on "commentary", for "functions.add", with the content type
    "<|constrain|>json". Its output is on "commentary", from "functions.add", for "assistant".
    Reasoning before the last answer is left out. That after it belongs to an open turn, and stays.
    """
    answers = [n for n, m in enumerate(chat) if m["role"] == "assistant" and "tool_calls" not in m]
    names, messages = {}, []
    for n, m in enumerate(chat):
        fields = {"channel": "commentary"}
        if m["role"] == "tool":
            fields |= {"name": names[m["tool_call_id"]], "recipient": "assistant"}
        elif m["role"] == "user":
            fields = {}
        elif "tool_calls" not in m:
            fields = {"channel": "final"}
        if m.get("reasoning") and n > max(answers, default=-1):
            messages.append(Message.of("assistant", m["reasoning"], channel="analysis"))
        if m["content"] is not None:
            messages.append(Message.of(m["role"], m["content"], **fields))
        for call in m.get("tool_calls", []):
            names[call["id"]] = "functions." + call["function"]["name"]
            fields |= {"recipient": names[call["id"]], "content_type": "<|constrain|>json"}
            messages.append(Message.of("assistant", call["function"]["arguments"], **fields))
    return messages


def keep_reasoning_after(chat, last):
    """`my_client_messages`, with the reasoning after the dictionary `last` and no other."""
    messages = [m for m in my_client_messages(chat) if m.channel != "analysis"]
    for n in range(len(chat) - 1, last, -1):
        if chat[n].get("reasoning"):
            place = len([m for m in my_client_messages(chat[:n]) if m.channel != "analysis"])
            thought = Message.of("assistant", chat[n]["reasoning"], channel="analysis")
            messages.insert(place, thought)
    return messages


def reasoning_never_kept(chat):
    """You always drop the reasoning. After a call the turn is still open: with several calls, what
    the model found out so far may be nowhere else.
    """
    return keep_reasoning_after(chat, len(chat))


def reasoning_always_kept(chat):
    """You keep all reasoning. After an answer it is left out: the model was trained without it, and
    it fills the context.
    """
    return keep_reasoning_after(chat, -1)


def question_ends_the_turn(chat):
    """You drop the reasoning before the last question. An answer ends a turn: if the user wrote
    again before there was one, the reasoning stays.
    """
    return keep_reasoning_after(chat, max(n for n, m in enumerate(chat) if m["role"] == "user"))


def first_answer_ends_all(chat):
    """You drop only the reasoning before the first answer. In a longer chat every later turn would
    keep its reasoning: look for the last answer.
    """
    answers = [n for n, m in enumerate(chat) if m["role"] == "assistant" and "tool_calls" not in m]
    return keep_reasoning_after(chat, min(answers, default=-1))


def change_fields(chat, change):
    """`my_client_messages` with changed header fields: change(message) returns some of them."""
    changed = []
    for message in my_client_messages(chat):
        fields = {key: getattr(message, key) for key in ("channel", "recipient", "content_type")}
        fields |= {"name": message.author.name} | change(message)
        changed.append(Message.of(message.role, message.text, **fields))
    return changed


def outputs_in_order(chat):
    """You give outputs to calls in their order. A client may send them in any order: find the call
    by its id, or the model reads the output of another tool.
    """
    calls = [call["function"]["name"] for m in chat for call in m.get("tool_calls", [])]
    names = iter(calls)
    return change_fields(
        chat, lambda m: {"name": f"functions.{next(names)}"} if m.role == "tool" else {}
    )


def id_as_name(chat):
    """You write the id of the call as the author of the output. Harmony has no ids: the author is
    the function, as in the recipient of its call.
    """
    ids = iter([m["tool_call_id"] for m in chat if m["role"] == "tool"])
    return change_fields(chat, lambda m: {"name": next(ids)} if m.role == "tool" else {})


def names_without_namespace(chat):
    """You leave out `functions.`. The tools of a developer are declared in this namespace, and the
    model calls them by their full name.
    """

    def shorten(message):
        if message.role == "tool":
            return {"name": message.author.name.removeprefix("functions.")}
        return {"recipient": message.recipient and message.recipient.removeprefix("functions.")}

    return change_fields(chat, shorten)


def call_for_nobody(chat):
    """Your calls have no recipient. Without ` to=functions.add` the model does not see which tool
    it called.
    """
    return change_fields(chat, lambda m: {"recipient": None} if m.role == "assistant" else {})


def text_beside_calls_is_final(chat):
    """You put every text on `final`. A text beside calls is on `commentary`: it announces what the
    model does, and does not end the turn.
    """
    return change_fields(
        chat, lambda m: {"channel": "final"} if m.channel == "commentary" and is_plain(m) else {}
    )


def is_plain(message: Message) -> bool:
    return message.role == "assistant" and message.recipient is None


def client_cases() -> Iterator[tuple]:
    def ask(text: str) -> dict:
        return {"role": "user", "content": text}

    def call(*ids: str, content=None, reasoning=None) -> dict:
        names = {"a": "add", "b": "find", "c": "add", "d": "find"}
        calls = [
            {"id": each, "function": {"name": names[each], "arguments": f'{{"of": "{each}"}}'}}
            for each in ids
        ]
        thought = {"reasoning": reasoning} if reasoning else {}
        return {"role": "assistant", "content": content, "tool_calls": calls} | thought

    def output(id: str, text: str) -> dict:
        return {"role": "tool", "tool_call_id": id, "content": text}

    def answer(text: str, reasoning: str) -> dict:
        return {"role": "assistant", "content": text, "reasoning": reasoning}

    def turn(one: str, two: str) -> list[dict]:
        return [call(one, reasoning="Add."), output(one, "5"), call(two), output(two, "7"),
                answer("12", "5+7=12")]  # fmt: skip

    yield ([ask("2 + 3?")],)
    yield ([ask("2 + 3?"), answer("5", "2+3=5"), ask("And 4?")],)
    yield ([ask("2 + 3?"), call("a", reasoning="Add."), output("a", "5")],)
    yield (
        [ask("?"), call("a", reasoning="One."), output("a", "5"), call("b", reasoning="Two."),
         output("b", "")],
    )  # fmt: skip
    yield ([ask("?"), call("a", "b", content="Two calls."), output("b", "7"), output("a", "5")],)
    yield ([ask("?"), *turn("a", "b"), ask("Again."), *turn("c", "d"), ask("And now?")],)
    yield ([ask("?"), *turn("a", "b"), ask("Go."), call("c", reasoning="So."), output("c", "1")],)
    yield ([ask("?"), call("a", reasoning="Hm."), output("a", "5"), ask("Are you there?")],)


SHEET = Sheet(
    lesson="14_tools",
    title="Exercises: tools",
    text=(
        "Read [14_tools](../14_tools.ipynb) first. These functions are the program around a model."
    ),
    exercises=(
        Exercise(
            title="Run a call",
            text=(
                "Run one call of the model and return its output as a message. Whatever goes wrong"
                " becomes a text for the model."
            ),
            solution=my_run_call,
            cases=run_call_cases,
            misconceptions=(
                output_without_a_name,
                name_without_namespace,
                output_for_nobody,
                output_for_the_tool,
                output_always_on_commentary,
                result_as_python_text,
                text_in_quotes,
                error_not_reported,
                arguments_read_as_python,
                any_json_taken,
            ),
            hints=(
                "Find the text first, whatever happens, and build the message once at the end.",
                "Three things can fail, one after the other: `json.loads(call.arguments)` raises"
                " `ValueError`, `tools` lacks the name, the function raises.",
                "`tools[call.name](**arguments)` calls the function. Then"
                " `result if isinstance(result, str) else json.dumps(result)`.",
            ),
            minutes=12,
            difficulty=2,
            imports="import json\n\nfrom oss_lab.harmony import Message",
        ),
        Exercise(
            title="The loop, with a budget",
            text=(
                "Let the model call tools until it answers, and stop it if it makes more calls than"
                " it may."
            ),
            solution=my_loop,
            cases=loop_cases,
            misconceptions=(
                replies_counted,
                one_call_too_many,
                no_last_word,
                only_the_first_call,
                calls_not_kept,
                reasoning_not_kept,
                outputs_between_calls,
                open_calls_lost,
                earlier_rounds_forgotten,
            ),
            hints=(
                "Which two things end the loop? Where in it is each of them seen?",
                "`messages` only grows: `messages += reply`, then one output per call. The calls of"
                " a reply are those with a `recipient`.",
                "Before each call, compare the number of calls made with `most`. Return there, and"
                ' nowhere else, with the reason "budget".',
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="What a client sends",
            text=(
                "Servers get chats in another form: calls with ids, and reasoning as a field. Turn"
                " one into the messages of the next prompt. Which reasoning does the model see"
                " again?"
            ),
            solution=my_client_messages,
            cases=client_cases,
            misconceptions=(
                reasoning_never_kept,
                reasoning_always_kept,
                question_ends_the_turn,
                first_answer_ends_all,
                outputs_in_order,
                id_as_name,
                names_without_namespace,
                call_for_nobody,
                text_beside_calls_is_final,
            ),
            hints=(
                "Find the last answer first. Reasoning stays only after it.",
                "A dictionary from ids to names, filled at the calls and read at the outputs.",
                "For each dictionary in order: reasoning if it stays, then the text if it is not"
                " None, then one message per call.",
            ),
            minutes=15,
            difficulty=3,
            imports="from oss_lab.harmony import Message",
        ),
    ),
)
