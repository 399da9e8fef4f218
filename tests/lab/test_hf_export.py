"""A checkpoint in the Hugging Face layout is complete: transformers reads its tokenizer and its
chat template, and both agree with ours."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from oss_lab.checkpoint import companions
from oss_lab.checkpoint.huggingface_tokenizer import derive_merges, write_tokenizer
from oss_lab.cli.main import main
from oss_lab.errors import HarmonyError, VocabularyError
from oss_lab.harmony import conversation_from_dict, convert_messages, describe_tools, render
from oss_lab.harmony.messages import EFFORTS, Conversation, Message, SystemContent
from oss_lab.tokenizer import load_vocabulary

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (the extra `test` holds it)"
)

FILES = {
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
SCRIPTS = [  # ranges of code points; the last two cover almost everything
    *((0x20, 0x7F), (0x20, 0x7F), (0x00, 0x20), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700)),
    *((0x900, 0xA00), (0xE00, 0xE80), (0x1100, 0x1200), (0x2000, 0x2100), (0x3040, 0x3100)),
    *((0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x1F300, 0x1F700), (0xFE00, 0xFE10), (0x1E900, 0x1E960)),
    *((0x1, 0xD7FF), (0xE000, 0x10FFFF)),
]
PIECES = [
    *("the", " ", "  ", "\n", "\r\n", "\t", "'s", "'RE", "'ſ", "123", "4567890", " hello"),
    *("HELLO", "iPhone", "/", "//", "aaaaaaa", "é", "e\u0301", "ǅ", "<|start|", "|>"),
]
NO_TEXT_NAME = "<|reserved_200018|>"  # tiktoken's second name of <|endofprompt|>


def random_texts(encoding: tiktoken.Encoding, count: int, seed: int) -> Iterator[str]:
    """Text in many scripts, with words, white space and special tokens."""
    rng = random.Random(seed)
    specials = sorted(encoding.special_tokens_set - {NO_TEXT_NAME})

    def piece() -> str:
        kind = rng.random()
        if kind < 0.45:
            low, high = rng.choice(SCRIPTS)
            return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 6)))
        return rng.choice(PIECES) * rng.randint(1, 3) if kind < 0.9 else rng.choice(specials)

    for _ in range(count):
        yield "".join(piece() for _ in range(rng.randint(0, 12)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """nano, converted on the command line."""
    folder = tmp_path_factory.mktemp("exported") / "nano"
    assert main(["convert", "nano", "--to", "huggingface", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def load_tokenizer(
    tmp_path_factory, exported, o200k
) -> Callable[[str], tuple[tiktoken.Encoding, Any]]:
    """`load_tokenizer("nano")`: our vocabulary, and transformers' reading of its files."""
    pairs = {}

    def load(name: str) -> tuple[tiktoken.Encoding, Any]:
        if name not in pairs:
            folder = exported
            if name != "nano":
                folder = tmp_path_factory.mktemp(name)
                write_tokenizer(folder, o200k, 131_072)
                shutil.copy(exported / "config.json", folder)
            read = transformers.AutoTokenizer.from_pretrained(folder)
            pairs[name] = (load_vocabulary("nano") if name == "nano" else o200k, read)
        return pairs[name]

    return load


def check_texts(encoding: tiktoken.Encoding, theirs: Any, count: int, seed: int) -> None:
    texts = list(random_texts(encoding, count, seed))
    read = theirs(texts, add_special_tokens=False)["input_ids"]
    plain = theirs(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    for text, ids, ordinary in zip(texts, read, plain, strict=True):
        assert ids == encoding.encode(text, allowed_special="all"), text
        assert ordinary == encoding.encode_ordinary(text), text
        assert theirs.decode(ids) == text


@pytest.mark.parametrize("name", ["nano", "o200k_harmony"])
def test_fresh_text_gives_our_ids(load_tokenizer, name) -> None:
    encoding, theirs = load_tokenizer(name)
    check_texts(encoding, theirs, 500, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano", "o200k_harmony"])
def test_much_fresh_text_gives_our_ids(load_tokenizer, name) -> None:
    encoding, theirs = load_tokenizer(name)
    check_texts(encoding, theirs, 20_000, seed=1)


def test_special_tokens_have_our_ids(load_tokenizer) -> None:
    for name in ("nano", "o200k_harmony"):
        encoding, theirs = load_tokenizer(name)
        assert len(theirs) == encoding.n_vocab
        for token in encoding.special_tokens_set - {NO_TEXT_NAME}:
            assert theirs.convert_tokens_to_ids(token) == encoding.encode_single_token(token)
        assert theirs.eos_token == "<|return|>"
        assert theirs.pad_token == "<|endoftext|>"
        assert theirs("x")["input_ids"] == encoding.encode("x"), "no special token is added"


def test_every_split_becomes_a_merge_in_the_order_of_the_ranks(tiny) -> None:
    ranks = {t: tiny.encode_single_token(t) for t in tiny.token_byte_values()}
    merges = list(derive_merges(ranks))
    assert (b"th", b"e") in merges
    assert [ranks[a + b] for a, b in merges] == sorted(ranks[a + b] for a, b in merges)


def test_our_reader_finds_o200k_in_the_exported_tokenizer(load_tokenizer) -> None:
    encoding, theirs = load_tokenizer("o200k_harmony")
    read = load_vocabulary("o200k_harmony", path=Path(theirs.name_or_path, "tokenizer.json"))
    assert read._mergeable_ranks == encoding._mergeable_ranks


# Vectors of openai-harmony that Hugging Face's messages cannot express.
FIXED_CHANNELS = "the template always lists the three channels"
NO_HEADER_FIELDS = "a message has no channel, recipient or content type"
INEXPRESSIBLE = {
    "system_channel_config_empty": FIXED_CHANNELS,
    "system_required_channels_two": FIXED_CHANNELS,
    "developer_function_tools_empty_list": "an empty list of tools means no tools",
    "developer_three_namespaces": "tools have one namespace, functions",
    "developer_before_system_order": "the template writes the system message first",
    "schema_defaults_floats": "Jinja writes 1e-05 and 2**64 as Python does, not as Rust",
    "final_from_user_role_channel": NO_HEADER_FIELDS,
    "tool_call_constrain_space_json": NO_HEADER_FIELDS,
    "tool_call_code": NO_HEADER_FIELDS,
    "tool_call_constrain_only": NO_HEADER_FIELDS,
    "recipient_all": NO_HEADER_FIELDS,
    "tool_output_bare": NO_HEADER_FIELDS,
    "next_role_user": "the generation prompt is always the assistant's",
    "special_tokens_in_header_fields": NO_HEADER_FIELDS,
    "training_final_with_recipient": NO_HEADER_FIELDS,
}


def to_template_arguments(conversation: Conversation) -> dict[str, Any]:
    """The arguments of `apply_chat_template` for a conversation."""
    arguments: dict[str, Any] = {}
    messages: list[dict[str, Any]] = []

    def extend_assistant(key: str, value: Any, *after: str) -> None:
        """Add a field to the last message if that has only fields that come before it."""
        last = messages[-1] if messages else {}
        if last.get("role") != "assistant" or not set(last) <= {"role", *after}:
            messages.append(last := {"role": "assistant"})
        last[key] = value

    for message in conversation:
        content = message.content[0]
        if isinstance(content, SystemContent):
            arguments |= {
                "model_identity": content.model_identity,
                "reasoning_effort": content.reasoning_effort,
                "knowledge_cutoff": content.knowledge_cutoff,
                "current_date": content.conversation_start_date,
                "builtin_tools": list(content.tools or ()),
            }
        elif message.role == "developer":
            instructions, tools = content.instructions, content.tools  # pyright: ignore
            if instructions is not None:
                messages.append({"role": "developer", "content": instructions})
            arguments["tools"] = [
                {"type": "function", "function": vars_of(tool)}
                for tool in (tools["functions"].tools if tools else ())
            ]
        elif message.role == "tool":
            messages.append({"role": "tool", "name": message.author.name, "content": message.text})
        elif message.role == "user":
            parts = [{"type": "text", "text": part.text} for part in message.content]  # pyright: ignore
            messages.append({"role": "user", "content": parts})
        elif message.recipient is not None:
            call = {"name": message.recipient, "arguments": message.text}
            extend_assistant("tool_calls", [{"function": call}], "thinking", "content")
        elif message.channel == "analysis":
            extend_assistant("thinking", message.text)
        else:
            extend_assistant("content", message.text, "thinking")
    return {"conversation": messages, **arguments}


def vars_of(tool: Any) -> dict[str, Any]:
    fields = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {name: value for name, value in fields.items() if value is not None}


def test_the_template_equals_render_on_every_vector(golden, load_tokenizer) -> None:
    encoding, theirs = load_tokenizer("o200k_harmony")
    compared = 0
    for vector in golden("harmony_render.json")["vectors"]:
        if vector["error"] or vector["name"] in INEXPRESSIBLE:
            continue
        conversation = conversation_from_dict(vector["conversation"])
        messages = list(conversation)
        if not any(message.role == "system" for message in messages):
            messages.insert(0, Message.of("system", SystemContent()))  # the template writes one
        arguments = to_template_arguments(Conversation(tuple(messages)))
        if not arguments["conversation"]:  # transformers refuses an empty list
            messages.append(Message.of("user", "Hi"))
            arguments["conversation"] = [{"role": "user", "content": "Hi"}]
        mode = vector["options"]["mode"].replace("message", "conversation")
        ids = theirs.apply_chat_template(
            **arguments,
            add_generation_prompt=mode == "completion",
            training=mode == "training",
            return_dict=False,
        )
        expected = render(Conversation(tuple(messages)), encoding, mode=mode)
        assert ids == expected.tokens, f"{vector['name']}\n{theirs.decode(ids)}"
        compared += 1
    assert compared == 45


def test_every_exception_is_needed(golden) -> None:
    vectors = golden("harmony_render.json")["vectors"]
    assert INEXPRESSIBLE.keys() <= {v["name"] for v in vectors if not v["error"]}


def random_chat(rng: random.Random) -> list[dict[str, Any]]:
    """A chat in OpenAI's form, with reasoning, calls and outputs."""
    words = ["hi", "2+2?", "α β", " x\n", "{}", "日本", ""]

    def text() -> str:
        return " ".join(rng.choices(words, k=3))

    chat: list[dict[str, Any]] = []
    if rng.random() < 0.5:
        chat.append({"role": rng.choice(["system", "developer"]), "content": rng.choice(words)})
    for turn in range(rng.randint(1, 4)):
        chat.append({"role": "user", "content": text()})
        for step in range(rng.randint(0, 2)):
            ids = [f"{turn}.{step}.{n}" for n in range(rng.randint(1, 2))]
            calls = [
                {
                    "id": id,
                    "function": {"name": f"f{n}", "arguments": rng.choice(["{}", '{"a":1}'])},
                }
                for n, id in enumerate(ids)
            ]
            content = rng.choice([None, "", "I will look."])
            key = rng.choice(["reasoning", "reasoning_content"])
            chat.append({"role": "assistant", "content": content, key: text().strip()})
            chat[-1]["tool_calls"] = calls
            chat += [{"role": "tool", "tool_call_id": id, "content": text()} for id in ids]
        if turn or rng.random() < 0.7:
            chat.append({"role": "assistant", "content": text(), "reasoning": text().strip()})
    return chat


def test_the_template_equals_render_on_random_chats(load_tokenizer) -> None:
    encoding, theirs = load_tokenizer("nano")
    weather = {"type": "function", "function": {"name": "f0", "description": "One.\nTwo."}}
    rng = random.Random(0)
    for _ in range(200):
        chat = random_chat(rng)
        tools = [weather] if rng.random() < 0.5 else []
        date, effort = rng.choice([None, "2026-11-30"]), rng.choice(EFFORTS)
        conversation = convert_messages(chat, effort=effort, date=date, tools=describe_tools(tools))
        for mode in ("completion", "conversation", "training"):
            ids = theirs.apply_chat_template(
                chat,
                tools=tools,
                reasoning_effort=effort,
                current_date=date,
                add_generation_prompt=mode == "completion",
                training=mode == "training",
                return_dict=False,
            )
            expected = render(conversation, encoding, mode=mode)
            assert ids == expected.tokens, json.dumps(chat)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reasoning_effort": "max"}, "reasoning_effort is max; use low, medium or high"),
        ({"builtin_tools": ["search"]}, "builtin_tools has search; use browser and python"),
    ],
)
def test_the_template_refuses_what_it_does_not_know(load_tokenizer, arguments, said) -> None:
    _, theirs = load_tokenizer("nano")
    with pytest.raises(Exception, match=said):
        theirs.apply_chat_template([{"role": "user", "content": "Hi"}], **arguments)
    for message, reason in (
        ({"role": "critic", "content": "x"}, "the role is critic"),
        ({"role": "tool", "content": "x"}, "no earlier call"),
        ({"role": "user", "content": [{"type": "image"}]}, "text only"),
    ):
        with pytest.raises(Exception, match=reason):
            theirs.apply_chat_template([message])


def call(id: str, name: str, arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": id, "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def output(id: str, text: str | None = "1", **more: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text, **more}


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([calling(call("0", "f")), output("9")], "with the id 9 waits"),
        ([calling(call("0", "f")), output("0"), output("0")], "with the id 0 waits"),
        ([calling(call("0", "f")), USER, output("0")], "with the id 0 waits"),
        ([calling(call("0", "f")), output("0", name="g")], "its call is to functions.f"),
        ([calling(call("0", "f"), call("1", "f")), output("1")], "in the order of the calls"),
        ([calling(call("0", "f"), call("0", "g"))], "the id of an earlier call"),
        ([calling(call("0", "f")), output("0", None)], "role tool has no content"),
        ([calling(call("0", "f", None))], "functions.f has no arguments"),
        ([calling(call("0", "a b"))], 'the name "a b"; use one word'),
        ([calling(call("0", "f<|call|>"))], "use one word"),
        ([calling(call("0", ""))], 'the name ""; use one word'),
        ([{"role": "user", "content": None}], "role user has no content"),
        ([{"role": "assistant"}], "role assistant has no content"),
        ([{"role": "assistant", "refusal": "No."}], "the key refusal"),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "the key function_call"),
        (
            [{"role": "assistant", "content": "4", "reasoning": "a", "reasoning_content": "b"}],
            "different texts",
        ),
    ],
)
def test_the_template_refuses_messages_that_we_refuse(load_tokenizer, messages, said) -> None:
    encoding, theirs = load_tokenizer("nano")
    with pytest.raises(HarmonyError):
        render(convert_messages([USER, *messages], effort="high"), encoding)
    with pytest.raises(Exception, match=said):
        theirs.apply_chat_template([USER, *messages])


def test_the_default_effort_is_that_of_the_lab(load_tokenizer, nano) -> None:
    _, theirs = load_tokenizer("nano")
    ids = theirs.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
    assert ids == nano.tokens_of([USER])
    _, theirs = load_tokenizer("o200k_harmony")
    assert "Reasoning: medium" in theirs.apply_chat_template([USER], tokenize=False)


def test_outputs_of_different_functions_may_be_in_any_order(load_tokenizer) -> None:
    encoding, theirs = load_tokenizer("nano")
    two = [calling(call("0", "f"), call("1", "g")), output("1"), output("0")]
    chat = [USER, *two, calling(call("0", "g")), output("0")]  # some servers restart their ids
    ids = theirs.apply_chat_template(chat, return_dict=False)
    expected = render(convert_messages(chat, effort="high"), encoding, mode="conversation")
    assert ids == expected.tokens


def test_a_variant_of_a_schema_may_be_a_boolean(load_tokenizer) -> None:
    encoding, theirs = load_tokenizer("nano")
    schema = {"type": "object", "properties": {"x": {"oneOf": [True, {"type": "string"}]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    ids = theirs.apply_chat_template([USER], tools=tools, return_dict=False)
    conversation = convert_messages([USER], effort="high", tools=describe_tools(tools))
    assert ids == render(conversation, encoding, mode="conversation").tokens


def test_the_template_cannot_keep_special_tokens_in_text_apart(load_tokenizer) -> None:
    """transformers encodes the rendered text, so a chat's text can imitate structure."""
    encoding, theirs = load_tokenizer("nano")
    chat = [{"role": "user", "content": "<|end|>"}]
    ids = theirs.apply_chat_template(chat, return_dict=False)
    ours = render(convert_messages(chat, effort="high"), encoding, mode="conversation").tokens
    end = encoding.encode_single_token("<|end|>")
    assert (ids.count(end), ours.count(end)) == (3, 2)


def test_transformers_answers_from_the_folder_alone(exported, nano, load_in_transformers) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = load_in_transformers(exported)
    question = [{"role": "user", "content": "What is 3 * 4?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, reasoning_effort="low", return_tensors="pt"
    )
    written = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    reply = nano.chat("What is 3 * 4?", effort="low", temperature=0.0)
    prompt = inputs["input_ids"].shape[1]
    assert written[0, :prompt].tolist() == list(reply.prompt_tokens)
    assert written[0, prompt:].tolist() == list(reply.ids)


def test_convert_names_the_files_that_it_wrote(exported, capsys, tmp_path) -> None:
    assert {file.name for file in exported.iterdir()} >= FILES
    assert main(["convert", "nano", "--to", "huggingface", "--out", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FILES)
    assert main(["convert", "nano", "--to", "original", "--out", str(tmp_path / "y")]) == 0
    assert not FILES & {file.name for file in (tmp_path / "y").iterdir()}


def test_a_fine_tune_keeps_its_own_tokenizer_files(exported, tmp_path, capsys) -> None:
    theirs = shutil.copytree(exported, tmp_path / "theirs")
    (theirs / "chat_template.jinja").unlink()
    (theirs / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    assert main(["convert", str(theirs), "--to", "huggingface", "--out", str(out)]) == 0
    assert (out / "tokenizer.json").read_text() == "{}"
    assert not (out / "chat_template.jinja").exists(), "nothing of ours is mixed with theirs"
    assert "copied from" in capsys.readouterr().out


def test_a_folder_without_a_tokenizer_gets_ours(exported, tmp_path) -> None:
    theirs = shutil.copytree(exported, tmp_path / "theirs")
    for name in FILES:
        (theirs / name).unlink()
    out = tmp_path / "out"
    assert main(["convert", str(theirs), "--to", "huggingface", "--out", str(out)]) == 0
    for name in FILES:
        assert (out / name).read_bytes() == (exported / name).read_bytes()


def test_a_tokenizer_is_replaced_only_on_request(tmp_path, capsys) -> None:
    (tmp_path / "tokenizer.json").write_text("mine")
    (tmp_path / ".partial-killed").mkdir()
    command = ["convert", "nano", "--to", "huggingface", "--out", str(tmp_path)]
    assert main(command) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert ".partial-killed is of a conversion that still runs or was killed" in warning
    assert "already contains tokenizer.json" in error
    assert (tmp_path / "tokenizer.json").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".partial-killed", "tokenizer.json"]
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "tokenizer.json").read_text() != "mine"


def test_an_unknown_vocabulary_is_reported(write_tiny, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(write_tiny()), "--to", "huggingface", "--out", str(out)]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert "has no tokenizer: no known vocabulary has 96 tokens; add your" in error
    assert not FILES & {file.name for file in out.iterdir()}


def test_a_missing_vocabulary_file_is_reported(
    write_tiny, tmp_path, capsys, monkeypatch, small_nano
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise VocabularyError("the vocabulary was not found")

    monkeypatch.setattr(companions, "load_vocabulary", missing)
    folder = write_tiny(config=replace(small_nano, num_experts=2))
    out = tmp_path / "out"
    assert main(["convert", str(folder), "--to", "huggingface", "--out", str(out)]) == 0
    assert "no tokenizer: the vocabulary was not found" in " ".join(capsys.readouterr().err.split())


def test_the_tokenizer_next_to_original_is_the_checkpoints_own(write_tiny, tmp_path) -> None:
    """As in a download of openai/gpt-oss-20b with its `original` folder."""
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.move(write_tiny(), whole / "original")
    (whole / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    assert main(["convert", str(whole), "--to", "huggingface", "--out", str(out)]) == 0
    assert (out / "tokenizer.json").read_text() == "{}"


def test_generation_defaults_of_a_folder_without_a_tokenizer_are_kept(exported, tmp_path) -> None:
    theirs = shutil.copytree(exported, tmp_path / "theirs")
    (theirs / "tokenizer.json").unlink()
    (theirs / "generation_config.json").write_text('{"temperature": 0.5}')
    out = tmp_path / "out"
    assert main(["convert", str(theirs), "--to", "huggingface", "--out", str(out)]) == 0
    assert (out / "generation_config.json").read_text() == '{"temperature": 0.5}'
    assert (out / "tokenizer.json").read_bytes() == (exported / "tokenizer.json").read_bytes()


def test_original_is_converted_into_the_folder_around_it(write_tiny, tmp_path, capsys) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.move(write_tiny(), whole / "original")
    own = {"tokenizer.json": "{}", "generation_config.json": '{"temperature": 0.5}'}
    for name, text in own.items():
        (whole / name).write_text(text)
    command = ["convert", str(whole), "--to", "huggingface", "--out", str(whole)]
    assert main(command) == 0
    assert {name: (whole / name).read_text() for name in own} == own
    (whole / "tokenizer.json").unlink()
    command[1] += "/original"
    assert main([*command, "--overwrite"]) == 0
    assert (whole / "generation_config.json").read_text() == own["generation_config.json"]


def test_a_link_to_a_tokenizer_is_replaced_and_its_file_kept(exported, tmp_path) -> None:
    (tmp_path / "shared.json").write_text("{}")
    for name in FILES:
        (tmp_path / name).symlink_to("shared.json")
    assert (
        main(["convert", "nano", "--to", "huggingface", "--out", str(tmp_path), "--overwrite"]) == 0
    )
    assert (tmp_path / "shared.json").read_text() == "{}"
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()
