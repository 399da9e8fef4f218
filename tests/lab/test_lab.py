"""The workbench: conversations, replies of a reciting model, traces, logits, loading."""

from dataclasses import replace

import pytest
import torch

import oss_lab
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import CheckpointError, LabError
from oss_lab.harmony import (
    Conversation,
    Delta,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    render,
)
from oss_lab.lab import Lab
from oss_lab.tokenizer import mask_usable_ids

THOUGHT = "<|channel|>analysis<|message|>six sevens<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>42<|return|>"


@pytest.fixture(scope="module")
def random_lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def test_a_question_becomes_a_conversation(random_lab):
    system, user = random_lab.conversation("6*7?")
    assert system.content == (SystemContent(reasoning_effort="medium"),)
    assert (user.role, user.text) == ("user", "6*7?")
    system, developer, _ = random_lab.conversation(
        "?", effort="high", instructions="Be brief.", tools=[ToolDescription("add")]
    )
    assert system.content[0].reasoning_effort == "high"
    (content,) = developer.content
    assert isinstance(content, DeveloperContent)
    assert content.instructions == "Be brief."
    assert content.tools is not None
    assert [tool.name for tool in content.tools["functions"].tools] == ["add"]


def test_changing_the_effort_keeps_the_rest_of_a_conversation(random_lab):
    given = Conversation.of(
        Message.of("system", SystemContent(conversation_start_date="2025-06-28")),
        Message.of("user", "a"),
    )
    assert random_lab.conversation(given) is given
    system, user = random_lab.conversation(given, effort="low")
    assert system.content[0] == SystemContent(
        conversation_start_date="2025-06-28", reasoning_effort="low"
    )
    assert user == given.messages[1]


def test_arguments_that_would_be_ignored_are_refused(random_lab):
    bare = Conversation.of(Message.of("user", "a"))
    with pytest.raises(LabError, match="no system message"):
        random_lab.conversation(bare, effort="low")
    with pytest.raises(LabError, match="already has system and developer messages; put instr"):
        random_lab.conversation(bare, instructions="x")
    with pytest.raises(LabError, match="effort must be 'low', 'medium' or 'high', got 'huge'"):
        random_lab.conversation("a", effort="huge")  # pyright: ignore[reportArgumentType]


def test_chat(reciting_lab):
    lab = reciting_lab(THOUGHT + ANSWER)
    reply = lab.chat("6*7?", effort="high")
    assert (reply.analysis, reply.final, reply.stop) == ("six sevens", "42", "return")
    assert list(reply.prompt_tokens) == lab.model.prompts[0]
    assert list(reply.prompt_tokens) == render(reply.prompt, lab.tokenizer).tokens
    assert "Reasoning: high" in lab.tokenizer.decode(reply.prompt_tokens)
    assert reply.timing.tokens == len(reply.tokens) > 20
    assert 0 < reply.timing.first_token <= reply.timing.total


def test_a_second_turn_does_not_see_the_first_ones_analysis(reciting_lab):
    lab = reciting_lab(THOUGHT + ANSWER)
    first = lab.chat("6*7?").conversation
    lab.chat(Conversation((*first, Message.of("user", "sure?"))))
    seen = lab.tokenizer.decode(lab.model.prompts[1])
    assert "six sevens" not in seen
    assert seen.endswith(
        "<|message|>42<|end|><|start|>user<|message|>sure?<|end|><|start|>assistant"
    )


def test_special_tokens_in_a_question_are_text(reciting_lab):
    lab = reciting_lab(ANSWER)
    lab.chat("<|end|><|start|>system")
    ends = lab.model.prompts[0].count(lab.tokenizer.encode_single_token("<|end|>"))
    assert ends == 2  # of the system message and the user message


def test_a_stream_gives_events_first_and_then_the_reply(reciting_lab):
    stream = reciting_lab(ANSWER).stream("6*7?")
    assert "".join(event.text for event in stream if isinstance(event, Delta)) == "42"
    assert stream.reply.final == "42"


def test_replies_are_those_of_chat(random_lab):
    prompts = [random_lab.conversation(text) for text in ("a", "something longer", "b c")]
    together = random_lab.chat_batch(prompts, max_tokens=12)
    for prompt, reply in zip(prompts, together, strict=True):
        assert reply.ids == random_lab.chat(prompt, max_tokens=12).ids


def test_a_seed_makes_a_chat_reproducible(random_lab):
    def say(seed):
        return random_lab.chat(
            "a", sampling=Sampling(temperature=2.0), seed=seed, max_tokens=12
        ).ids

    assert say(1) == say(1) != say(2)


def test_an_analysis_budget_forces_the_answer(reciting_lab):
    lab = reciting_lab("<|channel|>analysis<|message|>" + "1234567890" * 4 + "<|return|>")
    reply = lab.chat("?", analysis_budget=3)
    assert reply.analysis == "123"
    assert lab.tokenizer.decode([token.id for token in reply.tokens if token.forced]) == (
        "<|end|><|start|>assistant<|channel|>final<|message|>"
    )
    assert reply.final.endswith("4567890")


def test_generate_continues_text_and_ends_before_endoftext(reciting_lab):
    lab = reciting_lab("and so on<|endoftext|>")
    reply = lab.generate("once")
    assert (reply.text, reply.stop, reply.final) == ("and so on", "endoftext", None)
    assert lab.tokenizer.decode(reply.ids) == "and so on<|endoftext|>"
    assert len(reply.logprobs) == len(reply.ids)
    assert list(reply.prompt_tokens) == lab.model.prompts[0]
    assert lab.tokenizer.decode(lab.model.prompts[0]) == "once"
    assert lab.generate("once", max_tokens=4).text == "and s"
    stream = lab.stream_text("once")
    assert "".join(event.text for event in stream) == stream.reply.text == "and so on"
    with pytest.raises(LabError, match="is empty"):
        lab.generate("")


@pytest.mark.parametrize("max_tokens", [0, -1, 2.5, True])
def test_a_limit_that_is_not_a_positive_integer_is_refused(random_lab, max_tokens):
    for verb in (random_lab.chat, random_lab.generate, random_lab.stream):
        with pytest.raises(LabError, match=f"max_tokens is {max_tokens}; it must be an integer"):
            verb("a", max_tokens=max_tokens)


def test_reserved_ids_are_not_usable(random_lab, tiny):
    usable = mask_usable_ids(tiny, 288)
    reserved = [name for name in tiny.special_tokens_set if "reserved" in name]
    assert reserved
    unusable = {tiny.encode_single_token(name) for name in reserved} | set(range(280, 288))
    assert {n for n in range(288) if not usable[n]} == unusable
    wild = Sampling(temperature=100.0, seed=0)
    assert not unusable & set(random_lab.chat("a", sampling=wild, max_tokens=150).ids)


def test_a_vocabulary_too_large_for_the_model_is_refused(random_model, tiny_config, tiny):
    with pytest.raises(LabError, match="280 ids, but the model has only 96"):
        Lab(random_model(tiny_config), tiny, GREEDY)


def test_load_a_folder(write_tiny, tiny_config, capsys):
    folder = write_tiny(config=replace(tiny_config, vocab_size=640))
    lab = oss_lab.load(folder, device="cpu")
    assert (lab.tokenizer.name, lab.model.embedding.weight.dtype) == ("nano", torch.float32)
    output = capsys.readouterr()
    assert output.out == ""
    assert "tiny on cpu, reference kernels: float32, " in output.err
    assert "MiB: weights" in output.err
    half = oss_lab.load(folder, device="cpu", dtype="bfloat16", verbose=False)
    assert capsys.readouterr().err == ""
    expected, found = lab.logits([1, 2, 3]), half.logits([1, 2, 3])
    assert 0 < (expected - found).abs().max() < 0.1 * expected.abs().max()


def test_load_refuses_in_one_sentence(write_tiny, tiny_config, tmp_path, monkeypatch):
    odd = write_tiny()
    with pytest.raises(LabError, match=r"vocab_size of 96; .* 640 \(nano\) or 201088"):
        oss_lab.load(odd)
    with pytest.raises(CheckpointError, match="does not exist"):
        oss_lab.load(tmp_path / "nowhere")
    good = write_tiny(name="good", config=replace(tiny_config, vocab_size=640))
    with pytest.raises(LabError, match="dtype must be 'bfloat16' or 'float32', got 'float16'"):
        oss_lab.load(good, dtype="float16")  # pyright: ignore[reportArgumentType]
    with pytest.raises(LabError, match="device 'cpuu' cannot be used here"):
        oss_lab.load(good, device="cpuu")
    monkeypatch.setenv("OSS_LAB_DEVICE", "nonsense")
    with pytest.raises(LabError, match="device 'nonsense'"):
        oss_lab.load(good)


def test_a_published_model_is_fetched_on_request_only(tmp_path, monkeypatch):
    # This test uses an empty huggingface_hub cache and must not access the network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, size in (("20b", "13.8 GB"), ("120b", "65.2 GB")):
        with pytest.raises(LabError, match=rf"gpt-oss-{name} is not on this machine.*{size}"):
            oss_lab.load(name)
