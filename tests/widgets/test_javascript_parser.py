"""The Harmony parser in JavaScript gives the events, messages and diagnostics of Python's.

The streams are those of the grammar's generator, with every change that leaves or keeps the format;
random tokens; and those that other implementations misread. Sentences are compared too.
"""

import json
import random
from collections import Counter

import pytest

from oss_lab.errors import HarmonyError
from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    DiagnosticKind,
    Message,
    StreamParser,
    SystemContent,
    ToolDescription,
    event_to_dict,
    find_declared_tools,
    find_demanded_channels,
    make_function_tools,
    message_to_dict,
)
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.calls import append_outputs
from oss_lab.record.token import Token
from oss_lab.record.token_labels import label_token_ids

EXAMPLES = 15  # streams per change
RANDOM_STREAMS = 1_500
SPECIALS = ("start", "channel", "message", "end", "call", "return", "constrain", "endoftext")
WORDS = (
    "assistant", "user", "system", "tool", "developer", "user:alice", "tool:", "user:user",
    "functions.f", " functions.g", " to=functions.f", " to=", "to=user", "to=all", " to=to=x",
    "python", "to=a..b", "analysis", "commentary", "final", "finale", " json", "json", " code",
    "text", " yaml", " 2?", " ", "  ", "\n", "\x1c", "\x85", "\xa0", "\ufeff", "assistantfinal",
    "finaljson", "commentaryto=python", '{"x": 1}', "é", "你好", "'", "\"'", "\\", "\u200b",
    "\U000e0001", "<|x", "<|end|>",
)  # fmt: skip

# (whether the stream starts after <|start|>assistant, its text), from public reports of defects.
SHARED = {
    "A1": "<|channel|>commentary to=assistant<|message|>I will look.<|end|><|start|>assistant"
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
    "A2": "<|channel|>analysis<|message|>hi<|end|><|start|>assistantfinal<|message|>4<|return|>",
    "A3": "<|channel|>analysis<|message|>hi<|end|><|start|>assistant<|message|>4<|return|>",
    "A4": "<|channel|>final<|message|>4<|end|><|start|>user<|message|>and 5?<|end|><|start|>"
    "assistant<|channel|>final<|message|>6<|return|>",
    "A5": "<|channel|>commentary functions.a json<|message|>{}<|call|>",
    "A6": "<|channel|>commentary 2?<|message|>x<|return|>",
    "A7": '<|channel|>commentary to=functions.a json {"x":1}<|call|>',
    "A9": "<|channel|>commentary to=functions.a <|constrain|>json<|message|>{}<|end|><|return|>",
    "A10": "<|channel|>commentary json<|message|>{}<|call|>",
    "A11": "<|channel|>",
    "A12": "<|channel|>analysis to=functions.f<|message|>{}<|call|>",
    "A14": "<|channel|>commentary to=functions.f<|message|>{}<|call|><|start|>assistant<|channel|>"
    "commentary to=functions.a<|message|>{}<|call|>",
}

PARSE = """([vocabulary, streams]) => {
  const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
  const { StreamParser } = modules["harmony/parse.js"];
  const { labelTokenIds } = modules["record/token_labels.js"];
  return JSON.stringify(streams.map(({ ids, role, recipients, channels }) => {
    const parser = new StreamParser(tokenizer, role, { recipients, channels });
    const events = [...ids.flatMap((id) => parser.feed(id)), ...parser.finish()];
    const shown = events.map(({ message, ...event }) => {
      return event.event === "diagnostic" ? { ...event, message } : event;
    });
    const labels = labelTokenIds(tokenizer, ids, role);
    return [shown, parser.messages, labels];
  }));
}"""

READ = """([vocabulary, prompt, replies, budget]) => {
  const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
  const { ReplyReader, appendOutputs, findOpenCalls, textOn } = modules["record/reply.js"];
  return JSON.stringify(replies.map((ids) => {
    const reader = new ReplyReader(tokenizer, prompt, budget ?? Infinity);
    const forced = ids.map((id) => (reader.add(id), reader.nextForcedIds()));
    const [, reply] = reader.finish();
    const outputs = findOpenCalls(reply).map((call, n) => `output ${n}`);
    return {
      forced,
      messages: reply.messages,
      stop: reply.stop,
      kinds: reply.diagnostics.map((each) => each.kind),
      texts: ["analysis", "commentary", "final"].map((name) => textOn(reply.messages, name)),
      calls: findOpenCalls(reply).map((call) => call.recipient),
      continued: appendOutputs(reply, outputs),
    };
  }));
}"""


@pytest.fixture(scope="module")
def prompt():
    tools = make_function_tools([ToolDescription("f"), ToolDescription("a")])
    return Conversation.of(
        Message.of("system", SystemContent()),
        Message.of("developer", DeveloperContent(tools=tools)),
        Message.of("user", "?"),
    )


def spell_ids(encoding, items) -> list[int]:
    """Ids of a stream of special tokens, text, and bytes or ids that are not in the vocabulary."""
    ids = list[int]()
    for item in items:
        if isinstance(item, int):  # a byte, or an unknown id
            ids.append(encoding.encode_single_token(bytes([item])) if item < 256 else item)
        elif type(item) is str:
            ids += encoding.encode_ordinary(item)
        else:
            name = "<|reserved_639|>" if item.startswith("<|reserved") else str(item)
            ids.append(encoding.encode_single_token(name))
    return ids


def draw_changed(grammar, encoding):
    """(name of the change, ids, role): every change of the grammar, applied to drawn streams."""
    for name, change in (grammar.OUTSIDE | grammar.INSIDE).items():
        rng = random.Random(name)
        for _ in range(EXAMPLES):
            stream, items = grammar.apply(change, rng)
            yield name, spell_ids(encoding, items), stream.role


def draw_random(encoding):
    """Streams of random words and special tokens, some cut in the middle of a character."""
    rng = random.Random(3)
    specials = [encoding.encode_single_token(f"<|{name}|>") for name in SPECIALS]
    for _ in range(RANDOM_STREAMS):
        ids = list[int]()
        for _ in range(rng.randrange(1, 16)):
            if rng.random() < 0.45:
                ids.append(rng.choice(specials))
            elif rng.random() < 0.9:
                ids += encoding.encode_ordinary(rng.choice(WORDS))
            else:
                ids.append(rng.choice((rng.randrange(640), 639, 640, 9999, -1)))
        yield ids[: rng.choice((None, None, -1))], rng.choice((None, "assistant", "user", "tool"))


def read_in_python(encoding, ids, role, recipients, channels):
    parser = StreamParser(encoding, role, recipients=recipients, channels=channels)
    events = parser.feed(ids) + parser.finish()
    shown = [event_to_dict(event) for event in events]
    for event in shown:
        event.update(tokens=list(event["tokens"])) if "tokens" in event else None
    return shown, [as_dict(message) for message in parser.messages]


def as_dict(message):
    """A message as JSON, with the ids of its text."""
    found = message_to_dict(message)
    for part, content in zip(found["content"], message.content, strict=True):
        if getattr(content, "ids", None) is not None:
            part["ids"] = list(content.ids)
    return found


def without_null(messages):
    return [{key: v for key, v in each.items() if v is not None} for each in messages]


def check(page, vocabulary, encoding, streams) -> Counter[str]:
    """Compare every stream; returns how often each kind of diagnostic occurred."""
    kinds = Counter[str]()
    found = json.loads(page.evaluate(PARSE, [vocabulary, streams]))  # faster as one text
    for stream, (events, messages, labels) in zip(streams, found, strict=True):
        wanted, read = read_in_python(encoding, **stream)
        assert events == wanted, stream
        assert without_null(messages) == read, stream
        expected = label_token_ids(encoding, stream["ids"], stream["role"])
        fields = ("text", "message", "role", "channel", "recipient", "part")
        assert [[label[name] for name in fields] for label in labels] == [
            [getattr(label, name) for name in fields] for label in expected
        ], stream
        kinds.update(event["kind"] for event in wanted if event["event"] == "diagnostic")
    return kinds


def make_stream(ids, role, recipients=None, channels=("analysis", "commentary", "final")):
    return {"ids": ids, "role": role, "recipients": recipients, "channels": list(channels)}


def test_streams_of_the_grammar_are_read_as_in_python(
    joined_page, vocabulary, encoding, grammar
) -> None:
    tools = list(grammar.TOOLS)
    drawn = list(draw_changed(grammar, encoding))
    streams = [make_stream(ids, role, tools) for _, ids, role in drawn]
    assert len(streams) == EXAMPLES * (len(grammar.OUTSIDE) + len(grammar.INSIDE))
    kinds = check(joined_page, vocabulary, encoding, streams)
    print(f"{len(streams)} streams, {len(kinds)} kinds: {dict(kinds)}")
    assert kinds.keys() == set(DiagnosticKind)


def test_random_streams_are_read_as_in_python(joined_page, vocabulary, encoding) -> None:
    rng = random.Random(4)
    streams = [
        make_stream(
            ids,
            role,
            rng.choice((None, ["functions.f", "python"], [])),
            rng.choice((("analysis", "commentary", "final"), (), ("final",), ("commentary", "x"))),
        )
        for ids, role in draw_random(encoding)
    ]
    kinds = check(joined_page, vocabulary, encoding, streams)
    print(f"{len(streams)} streams, {len(kinds)} kinds: {dict(kinds)}")
    assert len(kinds) > 25


def test_a_strict_parser_throws_and_continues_as_in_python(
    joined_page, vocabulary, encoding
) -> None:
    parse = """([vocabulary, streams]) => {
      const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
      const { HarmonyError } = modules["errors.js"];
      const { StreamParser } = modules["harmony/parse.js"];
      return streams.map((ids) => {
        const parser = new StreamParser(tokenizer, "assistant", { isStrict: true });
        return ids.map((id) => {
          try {
            return parser.feed(id).map((each) => each.event);
          } catch (error) {
            return error instanceof HarmonyError ? error.message : "another error";
          }
        });
      });
    }"""
    streams = [encoding.encode(text, allowed_special="all") for text in SHARED.values()]
    found = joined_page.evaluate(parse, [vocabulary, streams])
    sentences = 0
    for ids, results in zip(streams, found, strict=True):
        parser = StreamParser(encoding, "assistant", strict=True)
        for id, result in zip(ids, results, strict=True):
            try:
                wanted = [event_to_dict(event)["event"] for event in parser.feed(id)]
            except HarmonyError as error:
                wanted, sentences = str(error), sentences + 1
            assert result == wanted
    assert sentences > 8


@pytest.mark.parametrize("budget", [None, 2])
def test_replies_are_built_as_in_python(
    joined_page, vocabulary, encoding, grammar, prompt, budget
) -> None:
    ids = [encoding.encode(text, allowed_special="all") for text in SHARED.values()]
    ids += [each for _, each, role in draw_changed(grammar, encoding) if role is not None]
    wire = [as_dict(message) for message in prompt]
    found = json.loads(joined_page.evaluate(READ, [vocabulary, wire, ids, budget]))
    stops = Counter[str]()
    for each, got in zip(ids, found, strict=True):
        builder = ReplyBuilder(encoding, prompt, (), analysis_budget=budget)
        forced = []
        for id in each:
            builder.add(Token(id, 0.0))
            forced.append(builder.next_forced_ids())
        reply = builder.finish()[1]
        outputs = iter(f"output {n}" for n in range(99))
        continued = append_outputs(reply, lambda _, outputs=outputs: next(outputs))
        assert got["forced"] == forced, each
        assert without_null(got["messages"]) == [as_dict(m) for m in reply.messages], each
        assert got["stop"] == reply.stop, each
        assert got["kinds"] == [d.kind for d in reply.diagnostics], each
        assert got["texts"] == [reply.analysis, reply.commentary, reply.final], each
        assert got["calls"] == [call.name for call in reply.open_calls], each
        wanted = [as_dict(message) for message in continued or reply.conversation]
        assert [clean(message) for message in got["continued"]] == wanted, each
        stops[reply.stop] += 1
    print(f"{len(ids)} replies: {dict(stops)}")
    assert stops.keys() == {"return", "call", "endoftext", "length", "invented"}


def clean(message):
    (found,) = without_null([message])
    return found


def test_the_declared_tools_and_channels_are_those_of_python(joined_page, prompt) -> None:
    text_developer = Message.of("developer", "Use functions.g.")
    unlisted = Message.of("system", SystemContent(channel_config=None))
    find = """(all) => all.map((messages) => {
      const { findDeclaredTools, findDemandedChannels } = modules["harmony/demands.js"];
      return [findDeclaredTools(messages), findDemandedChannels(messages)];
    })"""
    given = [list(prompt), [*prompt, text_developer], [unlisted], [Message.of("user", "?")], []]
    found = joined_page.evaluate(find, [[as_dict(m) for m in each] for each in given])
    for messages, (tools, channels) in zip(given, found, strict=True):
        wanted = find_declared_tools(messages)
        assert (None if tools is None else frozenset(tools)) == wanted
        assert tuple(channels) == find_demanded_channels(messages)
