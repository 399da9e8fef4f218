"""The shipped nano in transformers: its Hugging Face export gives the logits that we compute.

The tests compare one real conversation at each effort. A position with a near-tied router may use
other experts there and is left out; a trained model has few of them.
"""

from itertools import product

import pytest
import torch

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.harmony import Conversation, Message, SystemContent, render
from oss_lab.model import Recorder
from oss_lab.tokenizer import load_vocabulary

QUESTIONS = ("What is 347 * 62?", "What is 90817 + 4455?", "What is 12 * 9?")
TOLERANCE = 1e-4
MARGIN = 1e-4
MOST_LEFT_OUT = 0.02


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint("nano")


@pytest.fixture(scope="module")
def theirs(checkpoint, tmp_path_factory, load_in_transformers):
    folder = tmp_path_factory.mktemp("export")
    tensors = dict(checkpoint.tensors())
    write_checkpoint(folder, checkpoint.config, tensors, layout="huggingface")
    return load_in_transformers(folder)


@pytest.fixture(scope="module")
def ours(checkpoint):
    return load_model(checkpoint)


def compare(ours, theirs, tokens: torch.Tensor) -> tuple[float, int]:
    """The largest difference of logits, and how many positions were left out."""
    watch = Recorder({"moe.router_logits"})
    with torch.inference_mode():
        difference = (ours(tokens, hooks=watch) - theirs(tokens).logits).abs().amax(-1)[0]
    best = watch.stack("moe.router_logits").topk(ours.config.experts_per_token + 1).values
    counts = ((best[..., -2] - best[..., -1]) >= MARGIN).all(0)
    return difference[counts].max().item(), int((~counts).sum())


FIRST, *OTHERS = product(("high", "medium", "low"), QUESTIONS)


@pytest.mark.parametrize(
    ("effort", "question"),
    [FIRST, *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS)],
)
def test_transformers_computes_the_same_over_a_reply(checkpoint, ours, theirs, effort, question):
    system = Message.of("system", SystemContent(reasoning_effort=effort))
    conversation = Conversation.of(system, Message.of("user", question))
    encoding = load_vocabulary("nano", checkpoint=checkpoint.folder)
    prompt = torch.tensor([render(conversation, encoding).tokens])
    with torch.inference_mode():  # their reply, so the tokens come from real use
        tokens = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=120,
            do_sample=False,
            pad_token_id=0,
        )
    largest, left_out = compare(ours, theirs, tokens)
    print(f"{effort}, {tokens.shape[1]} tokens: {largest:.1e}, {left_out} left out")
    assert largest <= TOLERANCE
    assert left_out <= MOST_LEFT_OUT * tokens.shape[1]


def test_transformers_computes_the_same_beyond_the_initial_context(ours, theirs):
    config = ours.config
    length = 2 * config.initial_context_length
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab_size, (1, length), generator=generator)
    largest, left_out = compare(ours, theirs, tokens)
    print(f"random, {length} tokens: {largest:.1e}, {left_out} left out")
    assert largest <= TOLERANCE
    assert left_out <= MOST_LEFT_OUT * length
