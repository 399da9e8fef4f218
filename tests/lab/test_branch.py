"""Branches: each against a new run of the same prefix, and how many tokens they compute."""

import math
from dataclasses import replace

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab.analysis.branch import Tree
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import (
    AblateHead,
    AblateSlot,
    AddVector,
    BanExpert,
    Patch,
    ScaleExpert,
)
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.lab import Lab
from oss_lab.model import Recorder

SEQ = 40  # five windows of the tiny model
TOKENS = list(range(SEQ))
ABLATE = AblateSlot(layer="all", slot=0)


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def reply(nano):
    reply = nano.chat("What is 58 * 7?")
    assert reply.final == "406"
    assert len(reply.prompt_tokens) > nano.config.sliding_window
    return reply


@pytest.fixture
def token_counts(monkeypatch):
    """`token_counts(lab)`: a list that collects the number of tokens in each forward pass."""

    def count(lab):
        taken, forward = [], lab.model.forward

        def counting(tokens, *args, **options):
            taken.append(tokens.numel())
            return forward(tokens, *args, **options)

        monkeypatch.setattr(lab.model, "forward", counting)
        return taken

    return count


def generate_greedily(lab, ids, n, *effects, cache=None):
    """n tokens, generated greedily in a separate run."""
    batch = Batch(ReferenceEngine(lab.model), usable=lab.usable)
    stop = frozenset(lab.stops)
    batch.add([Request(tuple(ids), stop=stop, max_tokens=n, effects=effects)], cache)
    return [token for _, token in batch]


def generate_ids(lab, ids, n):
    """The ids of those tokens."""
    return tuple(token.id for token in generate_greedily(lab, ids, n))


def test_a_greedy_branch_without_a_change_repeats_the_parent(nano, reply):
    tree = Tree(nano, reply)
    assert tree.root.ids == (*reply.prompt_tokens, *reply.ids)
    begin = len(reply.prompt_tokens)
    for at in (begin, begin + 1, begin + 11, len(tree.root.ids) - 1):
        again = tree.branch(tree.root, at)
        assert again.ids == tree.root.ids
        assert again.start == at
        expected = [token.logprob for token in reply.tokens[at - begin :]]
        assert [token.logprob for token in again.tokens] == pytest.approx(expected, abs=1e-4)
        assert tree.compare(tree.root, again).differences == ()


@pytest.mark.parametrize("at", [1, 7, 8, 9, 30, SEQ])
def test_an_edited_branch_equals_a_new_run_of_the_prefix(lab, at):
    tree = Tree(lab, TOKENS)
    edited = tree.branch(tree.root, at, [99, 98], max_tokens=12)
    prefix = [*TOKENS[:at], 99, 98]
    assert edited.ids == (*prefix, *generate_ids(lab, prefix, 12))
    assert [token.forced for token in edited.tokens[:3]] == [True, True, False]
    logprobs = lab.logits(edited.ids).log_softmax(-1)
    for place, token in enumerate(edited.tokens, start=at):
        assert token.logprob == pytest.approx(float(logprobs[place - 1, token.id]), abs=1e-4)
    deeper = tree.branch(edited, at + 5, [97], max_tokens=6)
    prefix = [*edited.ids[: at + 5], 97]
    assert deeper.ids == (*prefix, *generate_ids(lab, prefix, 6))
    # The shared, frozen parts are unchanged.
    assert tree.branch(edited, at + 4, max_tokens=10).ids == edited.ids


def test_only_tokens_after_the_branch_are_computed(lab, token_counts):
    tree = Tree(lab, TOKENS)
    taken = token_counts(lab)
    edited = tree.branch(tree.root, 30, [99, 98, 97], max_tokens=5)
    # The token before the branch, the given ones, and all generated ones except the last.
    assert sum(taken) == 1 + 3 + (5 - 1)
    assert len(edited.tokens) == 8
    del taken[:]
    tree.branch(edited, len(edited.ids), max_tokens=4)
    assert sum(taken) == 1 + 3
    del taken[:]
    tree.branch(tree.root, 30, TOKENS[:9], max_tokens=0)
    assert sum(taken) == 9


def test_other_draws_from_the_same_place(lab):
    tree = Tree(lab, TOKENS)
    wild = Sampling(temperature=1.0, seed=1)
    one = tree.branch(tree.root, 20, sampling=wild, max_tokens=10)
    same = tree.branch(tree.root, 20, sampling=one.sampling, max_tokens=10)
    other = tree.branch(tree.root, 20, sampling=replace(wild, seed=2), max_tokens=10)
    assert one.ids == same.ids != other.ids
    unseeded = tree.branch(tree.root, 20, sampling=Sampling(temperature=1.0), max_tokens=10)
    assert unseeded.sampling is not None
    assert unseeded.sampling.seed is not None
    again = tree.branch(tree.root, 20, sampling=unseeded.sampling, max_tokens=10)
    assert again.ids == unseeded.ids


def test_interventions_are_active_from_the_branch_on_and_never_before(lab):
    tree, at = Tree(lab, TOKENS), 21
    with lab.intervene(ABLATE):
        under = tree.branch(tree.root, at, max_tokens=8)
        all_under = Tree(lab, TOKENS)
        everywhere = all_under.branch(all_under.root, at, max_tokens=8)
    assert under.interventions == (ABLATE,)
    assert str(ABLATE) in str(tree)
    # Equal to the prefix without interventions and the rest under the intervention.
    cache = KVCache(lab.config)
    with torch.inference_mode():
        lab.model(torch.tensor([TOKENS[: at - 1]]), cache, last=0)
    tokens = generate_greedily(lab, TOKENS[:at], 8, Effect(ABLATE), cache=cache)
    assert [token.id for token in tokens] == [token.id for token in under.tokens]
    logprobs = [token.logprob for token in under.tokens]
    assert logprobs == pytest.approx([token.logprob for token in tokens], abs=1e-5)
    # Different from the intervention at all positions, and both differ from the plain model.
    with lab.intervene(ABLATE):
        whole = lab.logits(TOKENS[:at], last=1)[0].log_softmax(-1)
    plain = lab.logits(TOKENS[:at], last=1)[0].log_softmax(-1)
    first = under.tokens[0]
    assert abs(float(whole[first.id]) - first.logprob) > 1e-3
    assert abs(float(plain[first.id]) - first.logprob) > 1e-3
    assert everywhere.tokens[0].logprob == pytest.approx(float(whole[everywhere.ids[at]]), abs=1e-4)
    # A branch of it without the intervention: the middle part keeps its computed values.
    after = tree.branch(under, at + 4, max_tokens=2)
    assert after.interventions == ()
    assert after.computed_spans == (
        (0, at - 1, ()),
        (at - 1, at + 3, (ABLATE,)),
        (at + 3, len(after.ids), ()),
    )
    assert abs(rerun_logprob(lab, after) - after.tokens[0].logprob) > 1e-4


def rerun_logprob(lab, node):
    """The logprob of a node's first token when everything is run without interventions."""
    logits = lab.logits(node.ids[: node.start], last=1)[0]
    return float(logits.log_softmax(-1)[node.tokens[0].id])


def test_positions_of_interventions_count_from_the_beginning(lab):
    tree, at = Tree(lab, TOKENS), 21
    here = replace(ABLATE, positions=(at + 1,))
    with lab.intervene(here):
        node = tree.branch(tree.root, at, TOKENS[at : at + 6], max_tokens=0)
        expected = lab.logits(node.ids).log_softmax(-1)
    found = [token.logprob for token in node.tokens]
    expected = [float(expected[n - 1, node.ids[n]]) for n in range(at, at + 6)]
    assert found == pytest.approx(expected, abs=1e-4)
    plain = [token.logprob for token in tree.root.tokens[at : at + 6]]
    assert found[:2] == pytest.approx(plain[:2], abs=1e-4)
    assert found[2] != pytest.approx(plain[2], abs=1e-4)


def test_the_trace_of_a_node_has_the_computed_values(lab):
    tree, at = Tree(lab, TOKENS), 21
    with lab.intervene(ABLATE):
        node = tree.branch(tree.root, at, max_tokens=8)
    child = tree.branch(node, at + 4, [99], max_tokens=8)
    trace = tree.trace(child, ["resid.post", "out.logits", "attn.k_rot"])
    # Compare with the cache of the branches, which is independent: rotated keys of both layers.
    for layer, cached in enumerate(child.cache.layers):
        keys = torch.cat([span[0, 0] for span in cached.slice_to(child.cache.length)], dim=1)
        kept = trace.tensor("attn.k_rot", layer)[:-1]
        torch.testing.assert_close(kept, keys.transpose(0, 1), atol=1e-4, rtol=1e-4)
    logprobs = trace.tensor("out.logits").log_softmax(-1)
    for place, token in enumerate(child.sequence):
        if place:
            assert token.logprob == pytest.approx(float(logprobs[place - 1, token.id]), abs=1e-4)
    plain = lab.trace(child.ids, ["resid.post"])
    apart = (plain.tensor("resid.post", 1) - trace.tensor("resid.post", 1)).abs().amax(-1)
    assert apart[: at - 1].max() < 1e-4 < apart[at - 1 :].min()
    (intervention,) = trace.origin.interventions
    assert intervention == f"from position {at - 1} to {at + 2}: {ABLATE}"
    with lab.intervene(
        AblateHead(layer=0, head=0)
    ):  # active now, but not when the node was computed
        now = tree.trace(child, ["resid.post"])
        assert torch.equal(now.tensor("resid.post", 1), trace.tensor("resid.post", 1))
        lab.logits(TOKENS)


def test_patches_with_other_values_are_not_confused(lab):
    tree = Tree(lab, TOKENS)
    ones, twos = (
        Patch(point="resid.post", layer=0, positions=(22,), values=torch.full((1, 64), value))
        for value in (1.0, 2.0)
    )
    assert ones == twos
    with lab.intervene(ones):
        first = tree.branch(tree.root, 21, TOKENS[21:30], max_tokens=0)
    with lab.intervene(twos):
        second = tree.branch(first, 22, TOKENS[22:30], max_tokens=0)
    assert [begin for begin, _, _ in second.computed_spans] == [0, 20, 21]
    patched = tree.trace(second, ["resid.post"]).tensor("resid.post", 0)[22]
    assert patched.tolist() == [2.0] * 64


def test_comparing_finds_where_two_nodes_differ(lab):
    tree = Tree(lab, TOKENS)
    edited = tree.branch(tree.root, 25, [99, *TOKENS[26:]], max_tokens=0)
    found = tree.compare(tree.root, edited, ["resid.post", "attn.k"])
    assert found.common == 25
    assert found.texts == tuple(
        lab.tokenizer.decode(ids[25:]).encode("utf-8", "surrogateescape").decode()
        for ids in (tree.root.ids, edited.ids)
    )
    assert found.differences[0] == "tokens: first difference at position 25, of 40 | 40"
    assert len(found.differences) == 1 + 2 * lab.config.num_hidden_layers
    assert all("from position 25 on" in line for line in found.differences[1:])
    assert not tree.compare(tree.root, tree.root).differences
    longer = tree.branch(edited, 40, max_tokens=3)
    assert tree.compare(edited, longer).common == 40
    vector = torch.ones(lab.config.hidden_size)
    with lab.intervene(AddVector(point="resid.post", layer=0, vector=vector, positions=(30,))):
        steered = tree.branch(tree.root, 20, TOKENS[20:], max_tokens=0)
    found = tree.compare(tree.root, steered, ["resid.post"])
    assert (found.common, found.texts) == (SEQ, ("", ""))
    assert all("from position 30 on" in line for line in found.differences[1:])


def test_replies_of_nodes_by_channel(nano, reply):
    tree = Tree(nano, reply)
    root = tree.reply(tree.root)
    assert replace(root, timing=reply.timing) == reply
    assert math.isnan(root.timing.total)
    at = len(reply.prompt_tokens) + 3  # after <|channel|>analysis<|message|>
    edited = tree.branch(tree.root, at, "9*7")
    answer = tree.reply(edited)
    assert (answer.analysis or "").startswith("9*7")
    assert answer.final != "406"
    assert answer.stop == "return"
    assert answer.conversation.messages[:-2] == reply.prompt.messages
    # A tree of plain ids finds where the turn starts, and an edited prompt counts as a prompt.
    plain = Tree(nano, [*reply.prompt_tokens, *reply.ids])
    again = plain.reply(plain.root)
    assert (again.prompt_tokens, again.messages) == (reply.prompt_tokens, reply.messages)
    spot = reply.prompt_tokens.index(nano.tokenizer.encode_ordinary("8")[0])
    rest = reply.prompt_tokens[spot + 1 :]
    asked = tree.branch(tree.root, spot, [*nano.tokenizer.encode_ordinary("9"), *rest])
    assert tree.reply(asked).conversation.messages[-3].text == "What is 59 * 7?"
    assert tree.reply(asked).final == nano.chat("What is 59 * 7?").final == "413"


def test_a_tree_as_text(nano, reply):
    tree = Tree(nano, reply)
    begin, end = len(reply.prompt_tokens), len(reply.prompt_tokens) + len(reply.ids) - 1
    child = tree.branch(tree.root, begin + 2, "9\n", max_tokens=2)
    with nano.intervene(ScaleExpert(layer=0, expert=0, by=1.5)):
        tree.branch(child, begin + 4, [5] * 40, max_tokens=0)
        tree.branch(tree.root, end, max_tokens=1)
        nano.logits([1] * 200)
    lines = str(tree).split("\n")
    starts = [line[: len(line) - len(line.lstrip()) + 1] for line in lines]
    assert starts == ["0", "  1", "    2", "  3"]
    assert lines[0].startswith(f"0  0-{end}  '<|start|>system")
    assert lines[0].count(" … ") == 2
    assert lines[1].startswith(f"  1  {begin + 2}-{begin + 2 + len(child.tokens) - 1}  '9\\n' + '")
    assert lines[3] == f"  3  {end}-{end}  '<|return|>'  under {tree.nodes[3].interventions[0]}"


def test_a_branch_ends_with_the_turn(nano, reply):
    tree = Tree(nano, reply)
    end = len(tree.root.ids)
    ended = tree.branch(tree.root, end - 1, [tree.root.ids[-1]])
    assert (len(ended.tokens), ended.sampling) == (1, None)
    with pytest.raises(LabError, match=f"adds nothing after position {end - 1}"):
        tree.branch(tree.root, end)


def test_mistakes_are_one_sentence(lab):
    tree = Tree(lab, TOKENS)
    for call, message in (
        (lambda: tree.branch(tree.root, 0), "at is 0; node 0 can branch at 1 to 40"),
        (lambda: tree.branch(tree.root, 41), "at is 41"),
        (
            lambda: tree.branch(tree.root, 3, max_tokens=0),
            "the branch adds nothing after position 2",
        ),
        (lambda: tree.branch(tree.root, 3, [288]), "the branch has id 288 at position 3"),
        (lambda: tree.branch(tree.root, 3, [1] * 9000), "the context is"),
        (lambda: tree.branch(tree.root, 3, max_tokens=-1), "max_tokens is -1"),
        (lambda: tree.reply(tree.root), "no assistant turn begins at position 0"),
        (lambda: tree.trace(tree.root, ["resid"]), "unknown point 'resid'"),
        (lambda: tree.branch(Tree(lab, [1, 2]).root, 1), "node 0 belongs to another tree"),
        (lambda: Tree(lab, []), "empty"),
    ):
        with pytest.raises(LabError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert len(tree.nodes) == 1


def test_one_token_makes_a_tree(lab):
    tree = Tree(lab, [5])
    assert math.isnan(tree.root.tokens[0].logprob)
    node = tree.branch(tree.root, 1, max_tokens=4)
    assert node.ids == (5, *generate_ids(lab, [5], 4))
    watch = Recorder({"embed"})
    lab.model(torch.tensor([[5]]), hooks=watch)
    kept = tree.trace(tree.root, ["embed"]).tensor("embed")
    assert torch.equal(kept, watch.stack("embed"))


def test_one_engine_computes_a_tree(lab):
    """A branch that the tree's kernels cannot compute is refused; no other engine computes it."""
    auto = Lab(lab.model, lab.tokenizer, kernels=load_backend("cpu"), is_auto=True)
    tree = Tree(auto, [5, 6, 7, 8])
    assert tree.engine.name == "cpu"
    sentence = r"the cpu kernels computed this tree and cannot serve this branch \(moe"
    with auto.intervene(BanExpert(layer=0, expert=1)):
        with pytest.raises(LabError, match=sentence):
            tree.branch(tree.root, 2, [9], max_tokens=0)
        wholly = Tree(auto, [5, 6, 7, 8])
    assert wholly.engine.name == "reference"
    wholly.branch(wholly.root, 2, [9], max_tokens=0)  # and the tree stays on the reference
    assert wholly.engine.name == "reference"
