"""The first lines that users type, and every documented statement about what the words mean."""

from typing import Any

import numpy as np
import pytest
import torch

import oss_lab
from oss_lab import AblateExpert, AblateHead, AddVector, Hook, Patch, Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, DeveloperContent, Message, SystemContent, ToolDescription
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.points import POINTS

QUESTION = "What is 3 * 4?"


@pytest.fixture(scope="module")
def lab():
    return oss_lab.load("nano", verbose=False)


@pytest.fixture(scope="module")
def reply(lab):
    return lab.chat(QUESTION)


def test_chat(lab):
    reply = lab.chat("What is 347 * 62?", effort="high", temperature=0.0, seed=0)
    assert reply.final == "21514"
    assert reply.analysis
    assert reply.tool_calls == ()
    assert len(reply.ids) == len(reply.logprobs) == len(reply.tokens)
    assert lab.tokenizer.decode(list(reply.prompt_tokens)).endswith("<|start|>assistant")


def test_stream(lab):
    stream = lab.stream(QUESTION, effort="low")
    text = "".join(event.text for event in stream if type(event).__name__ == "Delta")
    assert text == f"{stream.reply.analysis}{stream.reply.final}"


def test_chat_batch_gives_the_same_replies_as_each_chat_alone(lab):
    questions = [QUESTION, "What is 35 + 38?", [{"role": "user", "content": "What is 5 * 6?"}]]
    options = {"effort": "low", "max_tokens": 64}
    together = lab.chat_batch(questions, **options)
    assert [each.final for each in together] == ["12", "73", "30"]
    for reply, question in zip(together, questions, strict=True):
        alone = lab.chat(question, **options)
        assert (reply.ids, reply.prompt) == (alone.ids, alone.prompt)
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_row_numbers_may_be_integers_of_any_library(lab):
    sampled = {"temperature": 2.0, "seed": 1, "max_tokens": 8}
    plain = lab.chat_batch([QUESTION] * 3, [5, 5, 6], **sampled)
    for draws in (np.array([5, 5, 6]), torch.tensor([5, 5, 6])):
        assert [each.ids for each in lab.chat_batch([QUESTION] * 3, draws, **sampled)] == [
            each.ids for each in plain
        ]
    assert plain[0].ids == plain[1].ids != plain[2].ids


def test_generate_has_no_channels(lab):
    reply = lab.generate("What is 3", max_tokens=6, alternatives=2, points=["resid.post"])
    assert (reply.analysis, reply.commentary, reply.final) == (None, None, None)
    assert lab.tokenizer.decode(list(reply.ids)).startswith(reply.text)
    assert len(reply.logprobs) == len(reply.ids) == 6
    assert all(len(token.alternatives) == 2 for token in reply.tokens)
    assert reply.trace["resid.post", 3].shape == (len(reply.prompt_tokens) + 5, 96)
    assert reply.prompt is None


@pytest.mark.parametrize("verb", ["chat", "stream", "chat_batch", "generate"])
def test_the_same_keywords_everywhere(lab, verb):
    """`generate` refuses the keywords of a chat in one sentence."""
    call = getattr(lab, verb)
    asked = [QUESTION] if verb == "chat_batch" else QUESTION
    keywords = {
        "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "max_tokens": 3, "seed": 1,
        "stop": ["zzz"], "points": ["embed"], "interventions": [AblateHead(layer=0, head=0)],
        "sampling": Sampling(), "alternatives": 1,
    }  # fmt: skip
    of_a_chat = {
        "effort": "low", "tools": [ToolDescription("f")], "instructions": "Be brief.",
        "date": "2026-11-30", "analysis_budget": 5,
    }  # fmt: skip
    if verb == "generate":
        for name, value in of_a_chat.items():
            with pytest.raises(LabError, match=f"^{name} has no effect on plain text"):
                call(asked, **{name: value})
        of_a_chat = {}
    result = call(asked, **keywords, **of_a_chat)
    result = result.read() if verb == "stream" else result[0] if verb == "chat_batch" else result
    assert len(result.ids) <= 3
    assert result.trace.origin.seed == 1
    with pytest.raises(LabError, match="no keyword 'temprature'; did you mean 'temperature'"):
        call(asked, temprature=0.5)


def test_trace(lab, reply):
    points = ["resid.post", "moe.expert_ids"]
    trace = lab.trace(QUESTION, points, layers=[2, 3], heads=None, positions=None)
    resid = trace["resid.post", 3]
    assert resid.shape == (len(trace.tokens), 96)
    torch.nn.Linear(96, 1)(resid).sum().backward()  # autograd accepts it
    labeled = trace["resid.post"]
    assert labeled.dims == ("layer", "seq", "hidden")
    labeled.values[:] = 0  # both are copies that may be modified
    resid[:] = 0
    assert trace["resid.post", 3].abs().sum() > 0
    assert [lab.tokenizer.decode([trace.tokens[n]]) for n in trace.find("4")] == ["4", "4"]
    whole = lab.trace(reply, ["resid.post"], interventions=[Hook("attn.z", zero, layer=3)])
    assert whole.tokens == (*reply.prompt_tokens, *reply.ids)
    assert "Hook(attn.z, layer=3, fn=zero)" in whole.origin.interventions


def zero(z, here):
    return z * 0


def test_intervene(lab):
    with lab.intervene(AblateExpert(layer=2, expert=7)) as effects:
        lab.chat("What is 347 * 62?")
    assert "AblateExpert(layer=2, expert=7): changed moe.expert_weights in" in str(effects)


def test_logits_and_batches(lab):
    questions = [QUESTION, "What is 35 + 38?", "Which is larger, 5 or 70?"]
    logits = lab.logits(QUESTION)
    assert logits.dtype == torch.float32
    assert logits.shape == (len(lab.tokens_of(QUESTION)), 640)
    for found, question in zip(lab.logits_batch(questions), questions, strict=True):
        torch.testing.assert_close(found, lab.logits(question), atol=1e-4, rtol=1e-4)
    points = ["resid.post", "moe.margin"]
    for found, question in zip(lab.trace_batch(questions, points), questions, strict=True):
        alone = lab.trace(question, points)
        assert (found.tokens, found.labels) == (alone.tokens, alone.labels)
        for layer in range(4):
            for point in points:
                torch.testing.assert_close(
                    found[point, layer], alone[point, layer], atol=1e-4, rtol=1e-4
                )


def test_lens_patch_and_gradients(lab, reply):
    assert lab.lens(reply).rank.shape == (4, len(reply.prompt_tokens) + len(reply.ids) - 1)
    patched = lab.patch(QUESTION, "What is 3 * 5?", lambda logits: logits[20] - logits[21])
    assert patched.metric.shape == (4, len(lab.tokens_of(QUESTION)))
    gradients = lab.gradients(reply, 20, ["resid.post", "attn.z"], layers=[1])
    assert gradients["attn.z"].dims == ("layer", "seq", "head", "head_dim")
    assert gradients["resid.post", 1].abs().sum() > 0


def test_tokenizer_model_and_config(lab):
    assert lab.tokenizer.decode(lab.tokenizer.encode_ordinary("4")) == "4"
    assert lab.config.num_hidden_layers == 4
    ids = torch.tensor([lab.tokens_of(QUESTION)])
    torch.testing.assert_close(lab.model(ids)[0], lab.logits(QUESTION))
    kept = []

    def watch(point, layer, x):  # an ordinary differentiable forward, with hooks
        if (point, layer) == ("resid.pre", 0):
            kept.append(x.detach().clone().requires_grad_())
            return kept[0]
        return x

    lab.model(ids, hooks=watch)[0, -1, 20].backward()
    assert kept[0].grad.abs().sum() > 0


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, range])
def test_token_ids_are_those_of_any_library_alone_or_as_a_batch_of_one(lab, form):
    ids = form(range(5, 9)) if form is not range else range(5, 9)
    batch = [ids] if isinstance(ids, list | tuple | range) else ids[None]
    for given in (ids, batch):
        assert lab.tokens_of(given) == [5, 6, 7, 8]
        assert lab.trace(given, ["embed"]).tokens == (5, 6, 7, 8)


def test_token_ids_may_be_a_series_or_a_list_of_one_array(lab):
    xarray = pytest.importorskip("xarray")
    pandas = pytest.importorskip("pandas")
    ids = np.arange(5, 9)
    for given in (pandas.Series(ids), xarray.DataArray(ids), [ids], [torch.tensor(ids)]):
        assert lab.tokens_of(given) == [5, 6, 7, 8]
    with pytest.raises(LabError, match=r"expected token ids or text, got 5\.0"):
        lab.tokens_of([ids.astype(float)])
    with pytest.raises(LabError, match="expected token ids or text, got"):
        lab.tokens_of([ids, ids])


@pytest.mark.parametrize("last", [np.int64(2), torch.tensor(2)])
def test_the_number_of_positions_may_be_an_integer_of_any_library(lab, last):
    assert torch.equal(lab.logits([5, 6, 7, 8], last), lab.logits([5, 6, 7, 8], 2))
    assert lab.model(torch.tensor([[5, 6, 7]]), last=np.int64(2)).shape[1] == 2


# The meaning of the words


def test_text_is_rendered_as_a_question_as_in_chat(lab):
    tools, date = [ToolDescription("f", "does something")], "2026-11-30"
    options = {"effort": "low", "instructions": "Be brief.", "tools": tools, "date": date}
    asked = lab.chat(QUESTION, max_tokens=1, **options)
    assert lab.trace(QUESTION, ["embed"], **options).tokens == asked.prompt_tokens
    assert lab.tokens_of(QUESTION, **options) == list(asked.prompt_tokens)
    assert len(lab.logits(QUESTION, **options)) == len(asked.prompt_tokens)
    assert lab.lens(QUESTION, target=20, **options).positions[-1] == len(asked.prompt_tokens) - 1
    assert lab.trace(QUESTION, ["embed"], raw=True).tokens == tuple(
        lab.tokenizer.encode_ordinary(QUESTION)
    )


def test_messages_get_the_labs_system_message_and_effort(lab):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Use digits."},
        {"role": "user", "content": QUESTION},
    ]
    efforts: list[tuple[Effort | None, Effort]] = [(None, "high"), ("low", "low")]
    for effort, expected in efforts:
        found = lab.conversation(messages, effort=effort)
        assert (
            found.messages
            == Conversation.of(
                Message.of("system", SystemContent(reasoning_effort=expected)),
                Message.of("developer", DeveloperContent("Be brief.\n\nUse digits.")),
                Message.of("user", QUESTION),
            ).messages
        )
    assert lab.trace(messages, ["embed"]).tokens == lab.chat(messages, max_tokens=1).prompt_tokens


def test_nano_is_greedy_at_high_effort_by_default(lab):
    assert (lab.effort, lab.sampling.temperature) == ("high", 0.0)
    plain = lab.chat(QUESTION, max_tokens=30)
    assert plain.ids == lab.chat(QUESTION, effort="high", temperature=0, max_tokens=30).ids


def test_a_hook_gets_the_documented_values(lab):
    seen = []

    def watch(z, here):
        seen.append((tuple(z.shape), here))

    tokens = len(lab.tokens_of(QUESTION))
    lab.chat(QUESTION, max_tokens=3, interventions=[Hook("attn.z", watch, layer=2)])
    shapes = [shape for shape, _ in seen]
    assert shapes == [(tokens, 8, 16), (1, 8, 16), (1, 8, 16)]  # one row; the first axis is seq
    first, second, _ = (here for _, here in seen)
    assert (first.layer, first.point, first.row) == (2, "attn.z", 0)
    assert (first.is_prefill, second.is_prefill) == (True, False)
    assert first.positions.tolist() == list(range(tokens))
    assert first.token_ids.tolist() == lab.tokens_of(QUESTION)
    assert second.positions.tolist() == [tokens]


@pytest.mark.parametrize(
    "name", [name for name, point in POINTS.items() if point.read_only_reason is None]
)
def test_a_hook_sees_a_points_trace_axes(lab, name):
    shapes = []
    layered: dict[str, Any] = {"layer": 1} if POINTS[name].is_per_layer else {}
    tokens = [5, 6, 7, 8]
    trace = lab.trace(tokens, [name], layers=[1])
    hook = Hook(name, lambda x, here: shapes.append(tuple(x.shape)), **layered)
    lab.logits(tokens, interventions=[hook])
    kept = trace[name, 1] if layered else trace.tensor(name)
    assert shapes == [tuple(kept.shape)]


def test_none_means_unchanged_and_in_place_edits_take_effect(lab):
    plain = lab.logits(QUESTION, last=1)

    def under(fn, **where):
        return lab.logits(QUESTION, last=1, interventions=[Hook("attn.z", fn, layer=1, **where)])

    assert torch.equal(under(lambda z, here: None), plain)
    ablated = lab.logits(
        QUESTION, last=1, interventions=[AblateHead(layer=1, head="all", positions=[5])]
    )

    def zero_in_place(z, here):
        z[:] = 0

    assert torch.equal(under(zero_in_place, positions=[5]), ablated)
    assert torch.equal(under(lambda z, here: z * 0, positions=[5]), ablated)
    for wrong in (lambda z, here: z[..., :3], lambda z, here: z.double(), lambda z, here: 3):
        with pytest.raises(LabError, match=r"at attn.z in layer 1 must return"):
            under(wrong)


def test_a_hook_is_active_for_prompt_and_generation_unless_limited(lab):
    positions = []
    hook = Hook("attn.z", lambda z, here: positions.extend(here.positions.tolist()), layer=0)
    reply = lab.chat(QUESTION, max_tokens=6, interventions=[hook])
    assert positions == list(range(len(reply.prompt_tokens) + 5))
    in_final = []
    lab.chat(
        QUESTION,
        interventions=[
            Hook("embed", lambda x, here: in_final.append(here.token_ids), channels=["final"])
        ],
    )
    text = lab.tokenizer.decode(torch.cat(in_final).tolist())
    assert "12" in text
    assert QUESTION not in text


def test_a_hooks_exception_reaches_the_caller_unchanged(lab):
    error = RuntimeError("mine")

    def fail(z, here):
        raise error

    for call in (lab.chat, lab.logits, lab.trace, lambda *a, **k: lab.chat_batch([*a], **k)):
        with pytest.raises(RuntimeError) as caught:
            call(QUESTION, interventions=[Hook("attn.z", fail, layer=0)])
        assert caught.value is error


def test_layer_head_and_expert_have_no_default():
    for make, what in (
        (lambda: AblateHead(head=1), "AblateHead needs a layer"),
        (lambda: AblateHead(layer=1), "AblateHead needs a head"),
        (lambda: AblateExpert(layer=1), "AblateExpert needs an expert"),
        (lambda: Hook("attn.z", zero), "Hook needs a layer"),
        (lambda: AddVector(point="resid.post", vector=torch.ones(96)), "AddVector needs a layer"),
    ):
        with pytest.raises(LabError, match=what):
            make()
    for layer in (np.int64(1), torch.tensor(1), range(1, 2), [1], np.array([1]), (1,)):
        assert AblateHead(layer=layer, head="all") == AblateHead(layer=1, head="all")


def test_patch_takes_a_value_from_another_trace_with_a_position_map(lab):
    clean, other = lab.tokens_of(QUESTION), lab.tokens_of("What is 3 * 5?")
    trace = lab.trace(clean, ["resid.post"], layers=[3])
    last = len(clean) - 1
    patch = Patch.from_trace(trace, "resid.post", 3, {last: last})
    patched = lab.logits(other, last=1, interventions=[patch])
    torch.testing.assert_close(patched, lab.logits(clean, last=1))


@pytest.mark.parametrize("point", ["embed", "resid.mid", "attn.z", "attn.v", "moe.expert_weights"])
def test_gradients_are_derivatives(lab, point):
    """Against the difference of two runs, for a logit, a difference of logits, and a function."""
    tokens, step = [5, 6, 7, 8, 9, 10], 1e-4
    layer: dict[str, Any] = {"layer": 1} if POINTS[point].is_per_layer else {}
    direction = {}

    def moved(sign):
        def fn(x, here):
            if not direction:
                generator = torch.Generator().manual_seed(0)
                direction[point] = torch.randn(x.shape, generator=generator)
            return x + sign * step * direction[point]

        return lab.logits(tokens, interventions=[Hook(point, fn, **layer)]).double()

    up, down = moved(1), moved(-1)
    for target, output in (
        (20, lambda logits: logits[-1, 20]),
        ((20, 30), lambda logits: logits[-1, 20] - logits[-1, 30]),
        (lambda logits: logits[3, 7] * 2, lambda logits: logits[3, 7] * 2),
    ):
        found = lab.gradients(tokens, target, [point], layers=[1])
        slope = (found[point, 1] if layer else found.trace.tensor(point)) * direction[point]
        expected = (output(up) - output(down)) / (2 * step)
        assert float(slope.sum()) == pytest.approx(float(expected), rel=0.05, abs=0.05)
        assert found.output == pytest.approx(float(output(lab.logits(tokens))), abs=1e-4)


def test_packed_kernels_have_no_gradient(lab):
    from oss_kernels.backends import load_backend

    only = type(lab)(lab.model, lab.tokenizer, kernels=load_backend("cpu"))
    with pytest.raises(LabError, match="the kernels have no backward pass"):
        only.gradients([5, 6], 20)


@pytest.mark.parametrize(
    "refused",
    [
        lambda lab: lab.chat(None),
        lambda lab: lab.chat(3),
        lambda lab: lab.chat(QUESTION, effort="extreme"),
        lambda lab: lab.chat(QUESTION, top_k=2.5),
        lambda lab: lab.chat(QUESTION, tools=[3]),
        lambda lab: lab.chat(QUESTION, points="embed"),
        lambda lab: lab.chat(QUESTION, points=["embd"]),
        lambda lab: lab.chat(QUESTION, interventions=3),
        lambda lab: lab.chat(QUESTION, stop=3),
        lambda lab: lab.chat(QUESTION, date=3),
        lambda lab: lab.chat(QUESTION, points=3),
        lambda lab: lab.chat_batch(QUESTION),
        lambda lab: lab.chat_batch(None),
        lambda lab: lab.chat_batch([QUESTION], draws=[-1], seed=0),
        lambda lab: lab.chat_batch([QUESTION], draws=["a"], seed=0),
        lambda lab: lab.trace_batch(QUESTION),
        lambda lab: lab.logits_batch(QUESTION),
        lambda lab: lab.generate("1 + 2", analysis_budget=0),
        lambda lab: lab.logits_batch(lab.conversation(QUESTION)),
        lambda lab: lab.collect(QUESTION, ["embed"], "never-made"),
        lambda lab: lab.trace(QUESTION, temprature=1),
        lambda lab: lab.lens(QUESTION, top=2.5),
        lambda lab: lab.generate(None),
        lambda lab: lab.generate(""),
        lambda lab: lab.trace([[1, 2], [3, 4]]),
        lambda lab: lab.trace([1.5]),
        lambda lab: lab.trace([]),
        lambda lab: lab.trace(QUESTION, layers=[9]),
        lambda lab: lab.trace(QUESTION, positions=["a"]),
        lambda lab: lab.trace([1, 2], effort="low"),
        lambda lab: lab.plan(QUESTION, ["nothing"]),
        lambda lab: lab.logits(QUESTION, last=0),
        lambda lab: lab.lens(QUESTION, positions=[10**6]),
        lambda lab: lab.patch(QUESTION, QUESTION),
        lambda lab: lab.gradients(QUESTION, "20"),
        lambda lab: lab.gradients(QUESTION, 20, ["moe.expert_ids"]),
        lambda lab: lab.intervene(AblateHead(layer=9, head=0)),
        lambda lab: lab.intervene("AblateHead"),
    ],
)
def test_every_refusal_is_a_lab_error_of_one_sentence(lab, refused):
    with pytest.raises(LabError) as caught:
        refused(lab)
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 500


def test_repr_and_rich_display_are_informative(lab, reply):
    assert repr(lab) == (
        "<Lab nano: 4 layers, 32 experts (4 active), nano vocabulary, float32 on cpu, reference"
        " engine>"
    )
    assert repr(reply) == f"<Reply final '12', {len(reply.ids)} tokens, stop 'return'>"
    assert "&lt;Lab nano" in lab._repr_html_()
    assert "<pre>12</pre>" in reply._repr_html_()
    assert repr(lab.lens(reply, positions=[3])) == "<Lens of 4 layers at 1 positions>"
    patched = lab.patch([5, 6, 7], [5, 8, 7], target=20, against=21)
    assert repr(patched) == "<Patching of resid.pre in 4 layers, by position (3)>"
    stream = lab.stream(QUESTION, max_tokens=2)
    assert repr(stream) == "<Stream, not read>"
    assert repr(stream.read()) in repr(stream)
    raw = lab.generate("<b>", max_tokens=2)
    assert repr(raw).startswith("<Reply text ")
    assert "<b>" not in raw._repr_html_()
