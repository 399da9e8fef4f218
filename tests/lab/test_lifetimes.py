"""Each state has one owner: interrupted forwards, interventions and requests have no lasting
effect."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab import AblateExpert, AblateHead, Hook, ScaleHead
from oss_lab.cli.main import main
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.request import Request
from oss_lab.hooks.interventions.changes import Effect, NoEffectWarning
from oss_lab.hooks.selection import Selection
from oss_lab.record.diff import UnequalEnginesWarning, compare_traces

QUESTION = "What is 3 * 4?"


@pytest.fixture(params=["reference", "kernels"])
def engine(request, random_model, tiny_config):
    return getattr(Engines(random_model(tiny_config), load_backend("cpu")), request.param)


class Interrupted(BaseException):
    """An interruption that is not an Exception, like Ctrl-C."""


def interrupt_at(layer, point):
    """Hooks that interrupt a forward at this point."""

    def hooks(name, at, x):
        if (name, at) == (point, layer):
            raise Interrupted
        return x

    return hooks


PLACES = [(None, "embed"), (0, "attn.q"), (1, "attn.z"), (1, "moe.out"), (None, "out.logits")]


@pytest.mark.parametrize(("layer", "point"), PLACES)
@torch.inference_mode()
def test_an_interrupted_forward_has_no_effect(engine, layer, point):
    ids = torch.randint(96, (2, 40), generator=torch.Generator().manual_seed(0))
    first, then = ids[:, :30], ids[:, 30:]

    def ragged():
        return JoinedCaches([KVCache(engine.config) for _ in range(2)])

    for new in (lambda: KVCache(engine.config, 2), ragged):
        past, undisturbed = new(), new()
        engine.forward(first, past)
        for part in (then[:, :3], then):  # one shorter and one longer than the pass that follows
            with pytest.raises(Interrupted):
                engine.forward(part, past, hooks=interrupt_at(layer, point))
        found = engine.forward(then, past)
        engine.forward(first, undisturbed)
        assert torch.equal(found, engine.forward(then, undisturbed))


@pytest.mark.parametrize("when", ["prefill", "step"])
def test_a_batch_continues_after_an_interrupted_step(engine, when):
    """Rows record and count nothing from the interrupted step."""

    def run(fails):
        armed = [False]

        def fn(x, here):
            if armed[0]:
                raise Interrupted
            return x * 0.5

        effect = Effect(Hook("attn.z", fn, layer=0))
        points = Selection.of(["attn.z", "resid.post"])
        batch, asked = (
            Batch(engine),
            [
                Request((1, 2, 3), max_tokens=6, selection=points, effects=(effect,)),
                Request((4, 5, 6, 7, 8), max_tokens=6),
            ],
        )
        armed[0] = fails and when == "prefill"
        if armed[0]:
            with pytest.raises(Interrupted):
                batch.add(asked)
            armed[0] = False
        rows, found = batch.add(asked), []
        for n in range(6):
            if fails and when == "step" and n in (2, 4):
                armed[0] = True
                with pytest.raises(Interrupted):
                    batch.step()
                armed[0] = False
            found += [token for _, token in batch.step()]
        assert rows[0].recording is not None
        return found, rows[0].recording.tensors(), (effect.calls, effect.squared_change)

    plain, disturbed = run(False), run(True)
    assert disturbed[0] == plain[0]
    assert disturbed[1].keys() == plain[1].keys()
    assert all(torch.equal(x, plain[1][key]) for key, x in disturbed[1].items())
    assert disturbed[2] == plain[2]


def test_interventions_end_in_any_order(nano):
    one, two = AblateHead(layer=0, head=1), AblateExpert(layer=1, expert=3)
    a, b, c = nano.intervene(one), nano.intervene(two), nano.intervene(one)
    for block in (a, b, c):
        block.__enter__()
    with pytest.warns(NoEffectWarning):
        a.__exit__(None, None, None)
    assert nano.interventions == (two, one)
    with pytest.warns(NoEffectWarning):
        c.__exit__(None, None, None)
    assert nano.interventions == (two,)
    with pytest.warns(NoEffectWarning):
        b.__exit__(None, None, None)
    assert nano.interventions == ()


def test_a_block_closed_in_another_context_ends_here(nano):
    block = nano.intervene(AblateHead(layer=0, head=1))
    block.__enter__()
    with pytest.warns(NoEffectWarning):
        copy_context().run(block.__exit__, None, None, None)
    assert nano.interventions == ()


def test_a_block_can_be_entered_only_once(nano):
    block = nano.intervene(AblateHead(layer=0, head=1))
    with pytest.raises(ValueError, match=r"was not entered; write `with lab.intervene"):
        block.__exit__(None, None, None)
    with block:
        nano.logits(QUESTION, last=1)
    with pytest.raises(ValueError, match=r"was already entered; call `lab.intervene` again"), block:
        pass
    assert nano.interventions == ()


def test_a_generator_keeps_its_own_interventions(nano):
    mine, theirs = AblateHead(layer=0, head=1), AblateHead(layer=0, head=2)

    def inside():
        with nano.intervene(theirs):
            nano.logits(QUESTION, last=1)
            yield
        yield

    with nano.intervene(mine):
        steps = inside()
        next(steps)
        next(steps)
        assert nano.interventions == (mine,)
        nano.logits(QUESTION, last=1)
    assert nano.interventions == ()
    abandoned = inside()
    next(abandoned)
    abandoned.close()
    assert nano.interventions == ()


def test_an_exception_ends_a_block(nano):
    with pytest.raises(ZeroDivisionError), nano.intervene(AblateHead(layer=0, head=1)):
        raise ZeroDivisionError
    assert nano.interventions == ()


def test_eight_threads_with_their_own_interventions(nano):
    plain = nano.logits(QUESTION, last=1)

    def under(head):
        with nano.intervene(AblateHead(layer="all", head=head)) as effects:
            found = [nano.logits(QUESTION, last=1) for _ in range(10)]
            reply = nano.chat(QUESTION, max_tokens=8)
        return found, reply.ids, str(effects)

    alone = [under(head) for head in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(under, range(8)))
    for (logits, ids, effects), (expected, expected_ids, expected_effects) in zip(
        found, alone, strict=True
    ):
        assert all(torch.equal(x, y) for x, y in zip(logits, expected, strict=True))
        assert (ids, effects) == (expected_ids, expected_effects)
        assert not torch.equal(logits[0], plain)
    assert torch.equal(nano.logits(QUESTION, last=1), plain)


def test_a_thread_does_not_see_the_interventions_of_another(nano):
    with nano.intervene(AblateHead(layer=0, head=1)), ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: nano.interventions).result() == ()
        nano.logits(QUESTION, last=1)


def test_two_labs_do_not_share_interventions(nano, untrained):
    with nano.intervene(AblateHead(layer=0, head=1)):
        assert untrained.interventions == ()
        nano.logits(QUESTION, last=1)


def test_a_request_keeps_the_interventions_active_when_it_was_created(nano):
    halved = ScaleHead(layer="all", head="all", by=0.1)
    with nano.intervene(halved):
        undisturbed = nano.chat(QUESTION, max_tokens=20).ids
    with nano.intervene(halved) as effects:
        created_inside = nano.stream(QUESTION, max_tokens=20)
        nano.logits([1, 2], last=1)
    before = effects.each[0].calls
    assert created_inside.read().ids == undisturbed  # read after the block was closed
    assert effects.each[0].calls > before
    created_outside = nano.stream(QUESTION, max_tokens=20)
    plain = nano.chat(QUESTION, max_tokens=20).ids
    with nano.intervene(halved):
        assert created_outside.read().ids == plain
        nano.logits([1, 2], last=1)
    assert plain != undisturbed


def test_a_block_inside_a_running_stream_does_not_affect_it(nano):
    plain = nano.chat(QUESTION, max_tokens=20).ids
    stream = nano.stream(QUESTION, max_tokens=20)
    events = iter(stream)
    next(events)
    with nano.intervene(AblateHead(layer="all", head="all")):
        for _ in events:
            pass
        nano.logits([1, 2], last=1)
    assert stream.reply.ids == plain


def test_a_trace_names_its_engine_and_the_reason(nano):
    fast = use_cpu_kernels(nano, is_auto=True)
    served = fast.trace(QUESTION, ["resid.post"])
    assert (served.origin.kernels, served.origin.reason) == ("cpu", None)
    reason = "moe.act: the expert kernel never stores it"
    wholly = fast.trace(QUESTION, ["resid.post", "moe.act"])
    assert (wholly.origin.kernels, wholly.origin.reason) == ("reference", reason)
    plain = nano.trace(QUESTION, ["resid.post"])
    assert plain.origin.reason is None
    for layer in range(4):  # all on the reference, without the rounding of the kernels
        assert torch.equal(wholly["resid.post", layer], plain["resid.post", layer])
    halved = Hook("moe.act", lambda x, here: x / 2, layer=0)
    reply = fast.chat(QUESTION, max_tokens=4, interventions=[halved])
    assert (reply.engine, reply.engine_reason) == ("reference", reason)
    assert fast.chat(QUESTION, max_tokens=4).engine == "cpu"
    slope = fast.gradients(QUESTION, 20).trace.origin
    assert (slope.kernels, slope.reason) == ("reference", "the kernels have no backward pass")
    assert nano.gradients(QUESTION, 20).trace.origin.reason is None


def test_comparing_traces_of_unequal_engines_warns(nano, tmp_path, capsys):
    mine = nano.trace(QUESTION, ["resid.post"])
    theirs = use_cpu_kernels(nano, is_auto=True).trace(QUESTION, ["resid.post"])
    sentence = r"computed by different engines \(reference and cpu\)"
    with pytest.warns(UnequalEnginesWarning, match=sentence):
        lines = list(compare_traces(mine, theirs, tolerance=1e-3))
    assert lines == ["kernels: reference | cpu"]
    mine.save(tmp_path / "a")
    theirs.save(tmp_path / "b")
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--tolerance", "1e-3"]) == 0
    output = capsys.readouterr()
    assert output.out == "kernels: reference | cpu\n"
    assert output.err.startswith("oss-lab: these traces were computed by different engines")


def keep_unchanged(x, here):
    """A hook that changes nothing."""


def test_named_kernels_refuse_what_they_cannot_serve(nano):
    only = use_cpu_kernels(nano, is_auto=False)
    sentence = r"the cpu kernels cannot serve this request \(moe.act: the expert kernel never"
    with pytest.raises(ValueError, match=sentence):
        only.trace(QUESTION, ["moe.act"])
    with pytest.raises(ValueError, match="the router kernel has already chosen the experts"):
        only.chat(QUESTION, interventions=[Hook("moe.router_logits", keep_unchanged, layer=0)])
    assert only.chat(QUESTION, max_tokens=4).engine == "cpu"


def use_cpu_kernels(lab, *, is_auto):
    """The same weights with the CPU's kernels."""
    return type(lab)(
        lab.model, lab.tokenizer, lab.sampling, lab.effort, lab.checkpoint,
        kernels=load_backend("cpu"), is_auto=is_auto,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_recording_another_point_changes_no_values(nano, name):
    lab = nano if name == "reference" else use_cpu_kernels(nano, is_auto=False)
    few, more = ["resid.post", "attn.z"], ["out.logits", "moe.expert_ids", "attn.k", "moe.entropy"]
    plain = lab.trace(QUESTION, few)
    for further in more:
        both = lab.trace(QUESTION, [further, *few])
        assert both.origin.kernels == name
        for point in few:
            for layer in range(4):
                assert torch.equal(both[point, layer], plain[point, layer])


def test_the_memory_plan_counts_what_the_choice_may_allocate(capsys):
    import oss_lab

    def experts(kernels):
        oss_lab.load("nano", kernels=kernels)
        plan = capsys.readouterr().err
        return float(plan.split("experts at most ")[1].split(" MiB")[0])

    assert experts("cpu") == 0
    assert experts("auto") == experts("reference") > 10
