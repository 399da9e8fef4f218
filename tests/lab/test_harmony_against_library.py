"""Random conversations and token streams, compared with the installed openai-harmony 0.0.8."""

import json
import random

import pytest

from oss_lab.errors import LabError
from oss_lab.harmony import (
    LibraryParser,
    conversation_from_dict,
    plain_message,
    render,
    to_typescript,
)
from oss_lab.harmony.messages import Role

SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
PROSE = """the answer is forty-two; let me think about f(x)=x² -- ok? 12345 3.14
你好 世界 こんにちは мир שלום مرحبا ไทย हिन्दी 한국어 naïve ﬁ é
👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 👍🏽 💖 𝔘𝔫𝔦 \u200b \ufeff null null_ish
<|start|> <|end|> <|message|> <|channel|>final <|constrain|>json <|endofprompt|>"""
WORDS = [
    *PROSE.split(),
    "\n\t",
    "",
    " ",
    "  \n\n",
    "l1\r\nl2\n",
    'say "hi"\\',
]


@pytest.fixture(scope="module")
def library(vocab_folder):
    module = pytest.importorskip("openai_harmony", reason="openai-harmony is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_RS_CACHE_DIR", str(vocab_folder))
        return module, module.load_harmony_encoding("HarmonyGptOss")


def text(rng, most=8):
    return rng.choice(["", " ", "\n"]).join(rng.choices(WORDS, k=rng.randrange(most)))


def maybe(rng, value, chance=0.5):
    return value if rng.random() < chance else None


def a_default(rng):
    number = rng.choice([0, -1, 2**63, 2**64, -(2**70), 10**25 + 7, 0.5, 1e21, 1e-7, -0.0, 1e16])
    if rng.random() < 0.5:
        number = rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 300)
    return rng.choice(
        [text(rng), number, None, True, [1, "a", None], {"b": text(rng), "a": [1.0, {}]}, "a"]
    )


def a_schema(rng, depth=0):
    kinds = ["string", "number", "integer", "boolean", "null", "date", None]
    kinds += ["array", "object", "object", ["string", "null"], ["integer", "array"], []] * (
        depth < 4
    )
    schema = {}
    kind = rng.choice(kinds)
    if kind is not None:
        schema["type"] = kind
    if (kind == "string" and rng.random() < 0.5) or rng.random() < 0.05:
        schema["enum"] = rng.choice([["a", "b"], [], ["x", 5, "null_ish"], [1, 2], [text(rng)]])
    if kind == "array" and rng.random() < 0.8:
        schema["items"] = a_schema(rng, depth + 1)
    if kind == "object" and rng.random() < 0.9:
        keys = rng.sample(["b", "a", "with space", "日本", "z", ""], rng.randrange(5))
        schema["properties"] = {key: a_schema(rng, depth + 1) for key in keys}
        schema["required"] = rng.sample(["a", "b", "z", "missing"], rng.randrange(4))
    if depth < 4 and rng.random() < 0.2:
        schema["oneOf"] = [a_schema(rng, depth + 1) for _ in range(rng.randrange(4))]
        if rng.random() < 0.1:
            schema["oneOf"] = "not a list"
    shared = rng.choice(["the same", text(rng)])
    for key, value, chance in (
        ("title", rng.choice([text(rng), 5]), 0.1),
        ("description", rng.choice([shared, "the same", "", 5]), 0.4),
        ("examples", rng.choice([[], ["x", 5, text(rng)], [1]]), 0.1),
        ("nullable", rng.choice([True, False, "true"]), 0.2),
        ("default", a_default(rng), 0.3),
        ("anyOf", [{"type": "string"}], 0.05),
        ("additionalProperties", False, 0.1),
    ):
        if rng.random() < chance:
            schema[key] = value
    items = list(schema.items())
    rng.shuffle(items)
    return dict(items)


def some_tools(rng):
    keys = rng.sample(["functions", "browser", "Zeta", "ä", "a.b"], rng.randrange(4))
    return {
        key: {
            "name": rng.choice([key, "other"]),
            "description": maybe(rng, text(rng)),
            "tools": [
                {
                    "name": rng.choice(["f", "get_weather", "<|end|>"]),
                    "description": text(rng),
                    "parameters": maybe(rng, a_schema(rng)),
                }
                for _ in range(rng.randrange(3))
            ],
        }
        for key in keys
    }


def a_content(rng, role):
    if role == "system" and rng.random() < 0.7:
        channels = {"valid_channels": rng.sample(["analysis", "final", "x y"], rng.randrange(4))}
        return {
            "type": "system_content",
            "model_identity": maybe(rng, text(rng)),
            "reasoning_effort": rng.choice(["Low", "Medium", "High", None]),
            "conversation_start_date": maybe(rng, text(rng)),
            "knowledge_cutoff": maybe(rng, text(rng)),
            "channel_config": maybe(rng, channels | {"channel_required": rng.random() < 0.5}),
            "tools": maybe(rng, some_tools(rng)),
        }
    if role == "developer" and rng.random() < 0.7:
        return {
            "type": "developer_content",
            "instructions": maybe(rng, text(rng)),
            "tools": maybe(rng, some_tools(rng)),
        }
    return {"type": "text", "text": text(rng, 30)}


def a_message(rng):
    role = rng.choice(["system", "developer", "user", "tool", *["assistant"] * 4])
    word = WORDS[rng.randrange(len(WORDS))]
    return {
        "role": role,
        "name": maybe(rng, word, 0.95 if role == "tool" else 0.1),
        "content": [a_content(rng, role) for _ in range(rng.choice([1, 1, 1, 2, 0]))],
        "channel": maybe(rng, rng.choice(["analysis", "final", "commentary", word]), 0.8),
        "recipient": maybe(rng, rng.choice(["functions.f", "all", "python", word]), 0.3),
        "content_type": maybe(rng, rng.choice(["<|constrain|>json", "code", word]), 0.2),
    }


def convert(library, wire, mode, drop, next_role):
    module, encoding = library
    conversation = module.Conversation.from_json(json.dumps(wire))
    if mode == "message":
        options = module.RenderOptions(conversation_has_function_tools=drop)
        return encoding.render(conversation.messages[0], options)
    config = module.RenderConversationConfig(auto_drop_analysis=drop)
    if mode == "completion":
        role = module.Role(next_role)
        return encoding.render_conversation_for_completion(conversation, role, config)
    if mode == "training":
        return encoding.render_conversation_for_training(conversation, config)
    return encoding.render_conversation(conversation, config)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_conversations_render_alike(library, o200k, seed):
    rng = random.Random(seed)
    errors = 0
    for _ in range(60):
        wire = {"messages": [a_message(rng) for _ in range(rng.randrange(1, 8))]}
        for mode in ("completion", "conversation", "training", "message"):
            flag = rng.random() < 0.5
            next_role: Role = rng.choice(["assistant", "user", "tool"])
            try:
                expected = convert(library, wire, mode, flag, next_role)
            except (RuntimeError, library[0].HarmonyError):
                expected = None
                errors += 1
            try:
                ours = render(
                    conversation_from_dict(wire),
                    o200k,
                    mode=mode,
                    policy="library" if flag else "keep",
                    layout="library",
                    next_role=next_role,
                    function_tools=flag if mode == "message" else None,
                ).tokens
            except LabError:
                ours = None
            assert ours == expected, (mode, flag, wire)
    assert errors < 200  # most cases render without an error


@pytest.mark.parametrize("seed", SEEDS)
def test_random_schemas_become_the_same_text(library, seed):
    module, encoding = library
    rng = random.Random(1000 + seed)
    for _ in range(150):
        schema = a_schema(rng)
        tool = module.ToolDescription.new("f", "", parameters=schema)
        content = module.DeveloperContent.new().with_function_tools([tool])
        message = module.Message.from_role_and_content(module.Role.DEVELOPER, content)
        rendered = encoding.decode_utf8(encoding.render(message))
        begin = rendered.index("type f = (_: ") + len("type f = (_: ")
        assert to_typescript(schema) == rendered[begin : rendered.rindex(") => any;")], schema


def a_stream(rng, encode):
    """Tokens of a broken stream with many headers."""
    pieces = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"]
    pieces = [*pieces, *pieces, "<|constrain|>", "<|endoftext|>", "assistant", "user", "tool"]
    pieces += ["analysis", "final", "commentary", " to=functions.f", "to=", " json", "functions.f"]
    pieces += ["<|start|>assistant<|channel|>final<|message|>", "<|message|>", *WORDS]
    pieces += [" \u2003 ", "\x1c", "\x0b", "\x85", "<", "<|channel|>"]
    odd = [9552, 55, 56, 124, 160, 200018, 201088, 201087, 201089, 4294967295, 2**32, -1]
    tokens = []
    for _ in range(rng.randrange(40)):
        if rng.random() < 0.1:
            tokens.append(rng.choice(odd[: rng.randrange(4, len(odd) + 1)]))
        elif rng.random() < 0.1:
            tokens.append(rng.randrange(200000))
        else:
            tokens += encode(rng.choice(pieces))
    return tokens


def outcome(action, *arguments):
    try:
        action(*arguments)
    except (ValueError, RuntimeError, OverflowError) as error:
        return str(error)
    return None


def to_name(role):
    return getattr(role, "value", role)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_streams_parse_alike_step_by_step(library, o200k, seed):
    module, encoding = library
    rng = random.Random(2000 + seed)
    for _ in range(250):
        role: Role | None = rng.choice([None, None, "assistant", "assistant", "tool", "user"])
        strict = rng.random() < 0.5
        tokens = a_stream(rng, lambda piece: o200k.encode(piece, allowed_special="all"))
        convert = module.StreamableParser(encoding, role and module.Role(role), strict=strict)
        ours = LibraryParser(o200k, role, strict)
        for step, token in enumerate([*tokens, None]):
            if token is None:
                errors = outcome(ours.process_eos), outcome(convert.process_eos)
            else:
                errors = outcome(ours.process, token), outcome(convert.process, token)
            where = (tokens, step, role, strict)
            assert errors[0] == errors[1], where
            assert ours.state == convert.state.value, where
            assert ours.current_role == to_name(convert.current_role), where
            assert ours.current_channel == convert.current_channel, where
            assert ours.current_recipient == convert.current_recipient, where
            assert ours.current_content_type == convert.current_content_type, where
            assert ours.last_content_delta == convert.last_content_delta, where
            assert ours.current_content == convert.current_content, where
        expected = [message.to_dict() for message in convert.messages]
        assert [plain_message(message) for message in ours.messages] == [
            {
                **{key: value for key, value in message.items() if value is not None},
                "role": to_name(message["role"]),
                "content": message["content"][0]["text"],
            }
            for message in expected
        ], (tokens, role, strict)
