"""Prompts, tools and the gallery in JavaScript give the token ids of Python's renderer."""

import json
import random
from dataclasses import replace

import pytest
from oss_widgets.page.gallery_data import build_gallery_data

from oss_lab.errors import HarmonyError
from oss_lab.harmony import (
    BROWSER,
    MODES,
    POLICIES,
    PYTHON,
    Author,
    ChannelConfig,
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    TextContent,
    ToolDescription,
    make_function_tools,
    message_to_dict,
    pair_calls,
    render,
    to_typescript,
)
from oss_lab.harmony.messages import EFFORTS
from oss_lab.harmony.policy import find_dropped_messages
from oss_lab.harmony.prompt import build_prompt
from oss_lab.nano.gallery import ABILITIES, GALLERY
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

CONVERSATIONS = 400
WORDS = ("", " ", "a b", "x", "final", "to=f", "<|end|>", "json", "system", "é", "all", "\x85")
RENDER = """([vocabulary, cases]) => {
  const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
  const { render } = modules["harmony/render.js"];
  return JSON.stringify(cases.map(([messages, options]) => {
    try {
      return render(messages, tokenizer, options);
    } catch (error) {
      return error.message;
    }
  }));
}"""
CATCH = """
  const attempt = (call) => {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof modules["errors.js"].LabError)) throw error;
      return `refused: ${error.message}`;
    }
  };
"""


def as_dict(message: Message):
    """A message as JSON, with the ids of its text."""
    found = message_to_dict(message)
    for part, content in zip(found["content"], message.content, strict=True):
        if isinstance(content, TextContent) and content.ids is not None:
            part["ids"] = list(content.ids)
    return found


def render_in_python(messages, encoding, mode, policy, layout):
    """The ids and the dropped messages, or the sentence that refuses the conversation."""
    try:
        found = render(
            Conversation(tuple(messages)), encoding, mode=mode, policy=policy, layout=layout
        )
    except HarmonyError as error:
        return str(error)
    return {"ids": found.tokens, "dropped": list(found.dropped)}


def compare(page, vocabulary, encoding, cases) -> list:
    """Check that each (messages, mode, policy, layout) is rendered alike; returns the results."""
    given = [
        [[as_dict(m) for m in messages], {"mode": mode, "policy": policy, "layout": layout}]
        for messages, mode, policy, layout in cases
    ]
    found = json.loads(page.evaluate(RENDER, [vocabulary, given]))
    wanted = [render_in_python(messages, encoding, *options) for messages, *options in cases]
    for case, one, other in zip(cases, found, wanted, strict=True):
        assert one == other, case
    return wanted


def test_every_example_has_the_ids_of_python(joined_page, vocabulary, encoding) -> None:
    class PromptOnly:
        effort = "high"

        def conversation(self, question, **setting):
            return build_prompt(question, default_effort="high", **setting)

    build = """([vocabulary, examples, efforts]) => {
      const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
      const { buildExamplePrompt } = modules["nano/gallery.js"];
      const { render } = modules["harmony/render.js"];
      return examples.map((each) => efforts.map((effort) => {
        return render(buildExamplePrompt(each, effort), tokenizer).ids;
      }));
    }"""
    examples = build_gallery_data()["examples"]
    found = joined_page.evaluate(build, [vocabulary, examples, list(EFFORTS)])
    assert len(found) == len(GALLERY) == 16
    for example, rows in zip(GALLERY, found, strict=True):
        for effort, ids in zip(EFFORTS, rows, strict=True):
            prompt = replace(example, effort=effort).prompt(PromptOnly())  # pyright: ignore[reportArgumentType]
            assert ids == render(prompt, encoding).tokens, (example.name, effort)


def test_the_gallery_is_json_and_its_tool_outputs_answer_calls(joined_page) -> None:
    data = build_gallery_data()
    assert json.loads(json.dumps(data))["abilities"] == ABILITIES
    assert data["calculator"]["name"] == CALCULATOR_TOOL.name
    answer = """(examples) => examples.map((each) => {
      const { makeMessage } = modules["harmony/messages.js"];
      const { findOutputs } = modules["nano/gallery.js"];
      const call = (text) => makeMessage("assistant", text, { recipient: "functions.f" });
      const read = (...texts) => findOutputs(each, { messages: texts.map(call), isCut: false });
      return [read(...Object.keys(each.tool_outputs)), read("{}"), read()];
    })"""
    for example, found in zip(GALLERY, joined_page.evaluate(answer, data["examples"]), strict=True):
        assert found == [list(example.tool_outputs.values()), None, []]


def draw_conversations(grammar, encoding):
    """Conversations of the grammar, some with the ids of their text or with an unusual field."""
    rng = random.Random(5)
    for n in range(CONVERSATIONS):
        messages = [part.message() for part in grammar.draw_conversation(rng).parts]
        messages = messages[: rng.choice((None, None, -1, -2))]
        k = rng.randrange(len(messages))
        if n % 4 == 0:
            data, end = messages[k].text.encode(), encoding.encode_single_token("<|end|>")
            ids = tuple(encoding.encode_single_token(bytes([byte])) for byte in data)
            content = (TextContent(messages[k].text, ids if n % 8 else (*ids, end)),)
            messages[k] = replace(messages[k], content=content)
        elif n % 4 == 1:
            field = rng.choice(("channel", "recipient", "content_type"))
            messages[k] = replace(messages[k], **{field: rng.choice(WORDS)})
        elif n % 4 == 2 and messages[k].role in ("user", "tool"):
            author = replace(messages[k].author, name=rng.choice((*WORDS, None)))
            messages[k] = replace(messages[k], author=author)
        options = (rng.choice(MODES), rng.choice(list(POLICIES)), rng.choice(("library", "model")))
        yield (messages, *options)


def test_conversations_are_rendered_or_refused_as_in_python(
    joined_page, vocabulary, encoding, grammar
) -> None:
    cases = list(draw_conversations(grammar, encoding))
    found = compare(joined_page, vocabulary, encoding, cases)
    refused = sum(isinstance(each, str) for each in found)
    dropped = sum(isinstance(each, dict) and each["dropped"] != [] for each in found)
    print(f"{len(found)} conversations, {refused} refused, {dropped} with dropped messages")
    assert refused > 20
    assert dropped > 20


def test_every_policy_drops_the_messages_that_python_drops(joined_page, grammar) -> None:
    rng = random.Random(6)
    drawn = [[p.message() for p in grammar.draw_conversation(rng).parts] for _ in range(300)]
    find = """([conversations, policies, modes]) => {
      const { findDroppedMessages } = modules["harmony/policy.js"];
      return conversations.map((messages) => policies.map((policy) => {
        return modes.map((mode) => findDroppedMessages(messages, policy, mode));
      }));
    }"""
    given = [[as_dict(message) for message in messages] for messages in drawn]
    found = joined_page.evaluate(find, [given, list(POLICIES), list(MODES)])
    for messages, by_policy in zip(drawn, found, strict=True):
        for policy, by_mode in zip(POLICIES, by_policy, strict=True):
            for mode, dropped in zip(MODES, by_mode, strict=True):
                assert dropped == sorted(find_dropped_messages(messages, policy, mode))


@pytest.mark.parametrize("name", [*WORDS, None, "user", "tool:x", "a<|b", "a:b", "functions.f"])
def test_names_are_rendered_or_refused_as_in_python(
    joined_page, vocabulary, encoding, name
) -> None:
    authors = [Author("user", name), Author("assistant", name), Author("tool", name)]
    fields = [{"channel": name}, {"recipient": name}, {"content_type": name}]
    messages = [Message(author, (TextContent("x"),), "final") for author in authors]
    messages += [Message(Author("assistant"), (TextContent("x"),), **each) for each in fields]
    compare(
        joined_page,
        vocabulary,
        encoding,
        [([each], "conversation", "keep", "model") for each in messages],
    )


def test_calls_are_paired_with_outputs_as_in_python(joined_page) -> None:
    rng = random.Random(9)
    names = ("functions.f", "functions.g", "python", "user", "all", "")
    kinds = [Message.of("user", "?"), Message.of("assistant", "4", channel="final")]
    kinds += [Message.of("assistant", "{}", recipient=name) for name in names] * 2
    kinds += [Message.of("tool", "4", name=name) for name in names[:3]] * 3
    drawn = [rng.choices(kinds, k=rng.randrange(9)) for _ in range(500)]
    pair = """(all) => all.map((messages) => {
      const { pairCalls } = modules["harmony/exchanges.js"];
      return pairCalls(messages).map(({ call, output }) => [call, output]);
    })"""
    found = joined_page.evaluate(pair, [[as_dict(m) for m in each] for each in drawn])
    assert found == [[[*each[:2]] for each in pair_calls(messages)] for messages in drawn]


def test_system_and_developer_messages_are_written_as_in_python(
    joined_page, vocabulary, encoding
) -> None:
    builtin = {"python": PYTHON, "a": replace(PYTHON, name="z")}
    contents = [
        SystemContent(),
        SystemContent(None, None, None, None, None),
        SystemContent("", "low", "2025-01-01", None, ChannelConfig((), True), builtin),
        SystemContent(channel_config=ChannelConfig(("final", "x"), False)),
        DeveloperContent(),
        DeveloperContent(""),
        DeveloperContent("Be brief.\n\nAlways."),
        DeveloperContent(
            "x", make_function_tools([CALCULATOR_TOOL, ToolDescription("f", "a\r\n")])
        ),
        DeveloperContent(None, make_function_tools([])),
        DeveloperContent(None, make_function_tools([ToolDescription("g", "one\ntwo\n\n")])),
    ]
    cases = []
    for content in contents:
        role = "system" if isinstance(content, SystemContent) else "developer"
        cases += [([Message.of(each, content)], "conversation", "spec", "model")
                  for each in (role, "user")]  # fmt: skip
    tools = Message.of("developer", contents[7])
    cases.append(([Message.of("system", SystemContent()), tools], "completion", "spec", "model"))
    found = compare(joined_page, vocabulary, encoding, cases)
    assert sum(isinstance(each, str) for each in found) == len(contents)


def draw_tool(rng: random.Random) -> ToolDescription:
    names = rng.sample(["word", "x", "city name", "été", "n_2", "B"], rng.randrange(5))
    properties = {}
    for name in names:
        properties[name] = {"type": rng.choice(["string", "number", "integer", "boolean"])}
        if rng.random() < 0.4:
            properties[name]["description"] = rng.choice(["One word.", "two\nlines", ""])
        if properties[name]["type"] == "string" and rng.random() < 0.4:
            properties[name]["enum"] = rng.sample(["a", "b c", '"'], rng.randrange(4))
    schema = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        schema["required"] = rng.sample(names, rng.randrange(len(names) + 1))
    return ToolDescription("f", "", schema)


def test_flat_schemas_are_written_as_in_python(joined_page) -> None:
    rng = random.Random(7)
    tools = [draw_tool(rng) for _ in range(300)]
    write = "(all) => all.map((tool) => modules['harmony/schema.js'].writeSignature(tool))"
    given = [{"name": tool.name, "parameters": tool.parameters} for tool in tools]
    found = joined_page.evaluate(write, given)
    assert found == [f"(_: {to_typescript(tool.parameters)})" for tool in tools]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array"}, 'parameters has the type "array"'),
        ({"type": "object", "oneOf": []}, 'parameters has the key "oneOf"'),
        ({"type": "object", "required": "x"}, 'required is "x"'),
        ({"type": "object", "properties": {"x": {"type": "object"}}}, 'x has the type "object"'),
        ({"type": "object", "properties": {"x": {"type": ["string"]}}}, 'the type ["string"]'),
        ({"type": "object", "properties": {"x": {}}}, "x has the type nothing"),
        ({"type": "object", "properties": {"x": True}}, "x is true"),
        ({"type": "object", "properties": {"x": {"type": "string", "default": 1}}}, '"default"'),
        ({"type": "object", "properties": {"x": {"type": "number", "enum": [1]}}}, "an enum of"),
        ({"type": "object", "properties": {"2": {"type": "string"}}}, 'the name "2"'),
        ([], "parameters is []"),
    ],
)
def test_other_schemas_are_refused_in_one_sentence(joined_page, schema, reason) -> None:
    write = f"""(tool) => {{
      {CATCH}
      return attempt(() => modules["harmony/schema.js"].writeSignature(tool));
    }}"""
    found = joined_page.evaluate(write, {"name": "f", "parameters": schema})
    assert found.startswith("refused: the schema of tool f: ")
    assert reason in found
    assert found.endswith("; use a flat object of strings, numbers and booleans")


def test_what_is_left_out_is_refused(joined_page, vocabulary) -> None:
    developer = {"type": "developer_content", "response_formats": [{"name": "x", "schema": {}}]}
    browser = {"type": "developer_content", "tools": message_to_dict(
        Message.of("developer", DeveloperContent(None, {"browser": BROWSER}))
    )["content"][0]["tools"]}  # fmt: skip
    for content, sentence in ((developer, "response formats"), (browser, 'the key "default"')):
        case = [[{"role": "developer", "content": [content]}], {}]
        (found,) = json.loads(joined_page.evaluate(RENDER, [vocabulary, [case]]))
        assert sentence in found
    case = [[{"role": "user", "content": [{"type": "text", "text": "a\ud800"}]}], {}]
    page_text = json.dumps([vocabulary, [case]])
    (found,) = json.loads(
        joined_page.evaluate(f"(text) => ({RENDER})(JSON.parse(text))", page_text)
    )
    assert "lone surrogate" in found


def test_a_prompt_has_the_parts_of_python(joined_page) -> None:
    build = """([question, setting]) => {
      return modules["harmony/prompt.js"].buildPrompt(question, setting);
    }"""
    setting = {"effort": "low", "instructions": "Be brief.", "date": "2025-01-01"}
    found = joined_page.evaluate(build, ["?", {**setting, "tools": []}])
    wanted = build_prompt("?", default_effort="high", **setting)  # pyright: ignore[reportArgumentType]
    without_null = json.loads(json.dumps(found), object_hook=drop_null)
    effort = without_null[0]["content"][0]
    effort["reasoning_effort"] = effort["reasoning_effort"].capitalize()
    assert without_null == [message_to_dict(message) for message in wanted]


def drop_null(data):
    return {key: value for key, value in data.items() if value is not None}


def test_the_calculator_is_exact(joined_page) -> None:
    rng = random.Random(8)

    def draw(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            return str(rng.choice((0, 7, rng.randrange(10_000), rng.randrange(10**30))))
        if rng.random() < 0.3:
            return rng.choice(("({})", "-{}", "-({})")).format(draw(depth - 1))
        return f"{draw(depth - 1)}{rng.choice((' + ', '-', '*', ' * '))}{draw(depth - 1)}"

    expressions = [draw(4) for _ in range(500)]
    expressions += [f"{a * b} / {b} + 1" for a, b in ((6, 7), (-8, 2), (10**20, 3))]
    run = """(all) => all.map((expression) => {
      return modules["nano/calculator.js"].runCalculator(JSON.stringify({ expression }));
    })"""
    found = joined_page.evaluate(run, expressions)
    assert found == [str(eval(each.replace("/", "//"))) for each in expressions]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("{", "the arguments { are not JSON"),
        ('{"word":"x"}', 'the arguments {"word":"x"} have no text "expression"'),
        ('{"expression":""}', 'expected a number in "", got the end'),
        ('{"expression":"2 ** 3"}', 'expected a number in "2 ** 3", got "*"'),
        ('{"expression":"2 3"}', 'cannot read "3" in "2 3"'),
        ('{"expression":"(2"}', 'a ")" is missing in "(2"'),
        ('{"expression":"7/2"}', "7/2 is not a whole number"),
        ('{"expression":"7/0"}', "7/0 is not defined"),
        ('{"expression":"alert(1)"}', 'expected a number in "alert(1)", got "a"'),
    ],
)
def test_what_the_calculator_cannot_evaluate_is_refused(joined_page, arguments, sentence) -> None:
    run = f"""(text) => {{
      {CATCH}
      return attempt(() => modules["nano/calculator.js"].runCalculator(text));
    }}"""
    assert joined_page.evaluate(run, arguments) == f"refused: {sentence}"
