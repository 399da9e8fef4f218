"""`lab.with_parts`: nano runs on a learner's functions, and a wrong one shows in the logits."""

import math
import threading
import time
from operator import mul

import pytest
import torch

import oss_lab
from oss_lab.course import slow_parts
from oss_lab.course.parts import OUTSIDE_THE_MODEL, PARTS
from oss_lab.engine.kernels import KernelEngine
from oss_lab.errors import LabError
from oss_lab.harmony import Message
from oss_lab.record.trace_file import build_header

# Correct parts, written as plain loops.


def loop_merge(piece, ranks):
    parts = [bytes([byte]) for byte in piece]
    while True:
        best = None
        for n in range(len(parts) - 1):
            rank = ranks.get(parts[n] + parts[n + 1])
            if rank is not None and (best is None or rank < best[0]):
                best = rank, n
        if best is None:
            return [ranks[part] for part in parts]
        n = best[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]


def loop_render(message, encoding):
    special, encode = encoding.encode_single_token, encoding.encode_ordinary
    is_call = message.role == "assistant" and message.recipient
    ids = [special("<|start|>"), *encode(message.author.name or message.role)]
    if message.channel:
        ids += [special("<|channel|>"), *encode(message.channel)]
    if message.recipient:
        ids += encode(f" to={message.recipient}")
    ids += [special("<|message|>"), *encode(message.text)]
    return [*ids, special("<|call|>" if is_call else "<|end|>")]


def loop_parse(ids, encoding):
    stops = {encoding.encode_single_token(f"<|{name}|>") for name in ("end", "call", "return")}
    messages, header, content, is_header = [], [], [], True

    def close():
        author, _, rest = encoding.decode(header).partition("<|channel|>")
        channel, *others = rest.split()
        to = [word[3:] for word in (*author.split(), *others) if word.startswith("to=")]
        text, recipient = encoding.decode(content), to[0] if to else None
        messages.append(Message.of("assistant", text, channel=channel, recipient=recipient))

    for id in ids:
        if id == encoding.encode_single_token("<|message|>"):
            is_header = False
        elif id in stops:
            close()
        elif id == encoding.encode_single_token("<|start|>"):
            header, content, is_header = [], [], True
        else:
            (header if is_header else content).append(id)
    if not is_header and ids[-1] not in stops:
        close()
    return messages


def loop_rms_norm(x, scale, eps):
    rows = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        size = math.sqrt(sum(value * value for value in row) / len(row) + eps)
        rows.append([value / size * s for value, s in zip(row, scale.tolist(), strict=True)])
    return torch.tensor(rows).view(x.shape)


def loop_rotate(x, cos, sin):
    out = torch.empty_like(x)
    half = x.shape[-1] // 2
    for seq in range(x.shape[2]):
        for n in range(half):
            # Both halves have the same cosine; the sine has a minus in the first half.
            c, s = cos[:, :, seq, n], sin[:, :, seq, half + n]
            a, b = x[:, :, seq, n], x[:, :, seq, half + n]
            out[:, :, seq, n] = a * c - b * s
            out[:, :, seq, half + n] = b * c + a * s
    return out


def loop_yarn_frequencies(head_dim, theta, factor, low, high):
    found = []
    for n in range(head_dim // 2):
        plain = theta ** (-2 * n / head_dim)
        slowed = min(max((n - low) / (high - low), 0), 1)
        found.append(plain * (1 - slowed) + plain / factor * slowed)
    return torch.tensor(found)


def loop_yarn_concentration(factor):
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def loop_attention_scores(q, k):
    size = q.shape[1] // k.shape[1]  # query heads that share a kv head
    queries, keys = q.tolist(), k.tolist()
    return torch.tensor(
        [
            [
                [[sum(map(mul, row, key)) / math.sqrt(len(row)) for key in keys[b][h // size]]
                 for row in head]
                for h, head in enumerate(heads)
            ]
            for b, heads in enumerate(queries)
        ]
    )  # fmt: skip


def mask_of(queries, keys, is_visible):
    rows = [
        [[is_visible(query, key) for key in keys[n]] for query in queries[n]]
        for n in range(len(queries))
    ]
    return torch.tensor(rows)


def loop_visible_keys(query_positions, key_positions, window):
    def is_visible(query, key):
        return 0 <= key <= query and (window is None or query - key < window)

    return mask_of(query_positions.tolist(), key_positions.tolist(), is_visible)


def loop_softmax_with_sink(scores, sinks):
    pattern, masses = torch.empty_like(scores), torch.empty_like(scores[..., 0])
    for batch in range(scores.shape[0]):
        for head in range(scores.shape[1]):
            sink = math.exp(sinks[batch, head])
            for seq, row in enumerate(scores[batch, head].tolist()):
                shares = [math.exp(score) for score in row]
                total = sum(shares) + sink
                pattern[batch, head, seq] = torch.tensor([share / total for share in shares])
                masses[batch, head, seq] = sink / total
    return pattern, masses


def loop_router(router_logits, slots):
    ids, weights = [], []
    for row in router_logits.reshape(-1, router_logits.shape[-1]).tolist():
        best = sorted(range(len(row)), key=lambda expert: -row[expert])[:slots]
        shares = [math.exp(row[expert]) for expert in best]
        ids.append(best)
        weights.append([share / sum(shares) for share in shares])
    shape = (*router_logits.shape[:-1], slots)
    return torch.tensor(ids).view(shape), torch.tensor(weights).view(shape)


def loop_split_gate_up(gate_up):
    gate, up = [], []
    for n in range(gate_up.shape[-1]):
        (up if n % 2 else gate).append(gate_up[..., n])
    return torch.stack(gate, -1), torch.stack(up, -1)


def loop_swiglu(gate, up, alpha, limit):
    out = []
    for g, u in zip(gate.flatten().tolist(), up.flatten().tolist(), strict=True):
        g, u = min(g, limit), min(max(u, -limit), limit)
        out.append(g / (1 + math.exp(-alpha * g)) * (u + 1))
    return torch.tensor(out).view(gate.shape)


VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def decode(blocks, scales, *, low_first=True, bias=127):
    rows = []
    for block, scale in zip(
        blocks.reshape(-1, 16).tolist(), scales.flatten().tolist(), strict=True
    ):
        unit, row = 2.0 ** (scale - bias), []
        for byte in block:
            pair = (byte % 16, byte // 16) if low_first else (byte // 16, byte % 16)
            row += [VALUES[code] * unit for code in pair]
        rows.append(row)
    return torch.tensor(rows).view(*scales.shape[:-1], -1)


def loop_mxfp4(blocks, scales, dtype):
    return decode(blocks, scales).to(dtype)


def loop_sample(logits, samplings, draws):
    ids = []
    for row, sampling, draw in zip(logits.tolist(), samplings, draws, strict=True):
        if sampling.temperature == 0:
            ids.append(row.index(max(row)))
            continue
        peak = max(row)
        weights = [math.exp((value - peak) / sampling.temperature) for value in row]
        order = sorted(range(len(row)), key=lambda id: -weights[id])
        left, place = draw.uniform() * sum(weights) - weights[order[0]], 0
        while left >= 0:
            place += 1
            left -= weights[order[place]]
        ids.append(order[place])
    return ids


LOOPS = {name: globals()[f"loop_{name}"] for name in PARTS}

# Wrong parts, with the largest change of a logit that the course's table reports. Heads that are
# grouped wrongly are not in it; their change was measured here.


def layer_norm(x, scale, eps):
    return PARTS["rms_norm"].function(x - x.mean(-1, keepdim=True), scale, eps)


def wrong_window(change):
    def wrong(queries, keys, window):
        return PARTS["visible_keys"].function(queries, keys, change(window))

    return wrong


def drop_sinks(scores, sinks):
    return scores.softmax(-1), torch.zeros_like(scores[..., 0])


def scores_without_root(q, k):
    return PARTS["attention_scores"].function(q * q.shape[-1] ** 0.5, k)


def scores_with_other_groups(q, k):  # head j takes kv head j % 2 instead of j // 4
    return q @ k.repeat(1, q.shape[1] // k.shape[1], 1, 1).mT * q.shape[-1] ** -0.5


def softmax_before_choice(router_logits, slots):
    return tuple(each for each in router_logits.softmax(-1).topk(slots))[::-1]


def equal_weights(router_logits, slots):
    ids = router_logits.topk(slots).indices
    return ids, torch.full(ids.shape, 1 / slots)


def swiglu_without_one(gate, up, alpha, limit):
    g, u = gate.clamp(max=limit), up.clamp(-limit, limit)
    return g * torch.sigmoid(alpha * g) * u


WRONG = [
    ("rotate", lambda x, cos, sin: PARTS["rotate"].function(x, cos, -sin), 31),
    ("yarn_frequencies", lambda d, t, f, a, b: loop_yarn_frequencies(d, t, 1.0, a, b), 24),
    ("yarn_concentration", lambda factor: 1.0, 11),
    ("attention_scores", scores_without_root, 12),
    ("attention_scores", scores_with_other_groups, 16),
    ("visible_keys", wrong_window(lambda window: None), 20),
    ("visible_keys", wrong_window(lambda window: window and window + 1), 4.6),
    ("visible_keys", wrong_window(lambda window: window and window - 1), 3.3),
    ("softmax_with_sink", drop_sinks, 4.2),
    ("router", softmax_before_choice, 13),
    ("router", equal_weights, 18),
    ("split_gate_up", lambda gate_up: gate_up.chunk(2, -1), 26),
    ("split_gate_up", lambda gate_up: PARTS["split_gate_up"].function(gate_up)[::-1], 9.9),
    ("swiglu", swiglu_without_one, 12),
    ("swiglu", lambda g, u, a, b: PARTS["swiglu"].function(g, u, 1.0, b), 3.1),
    ("mxfp4", lambda b, s, dtype: decode(b, s, low_first=False).to(dtype), 23),
    ("mxfp4", lambda b, s, dtype: decode(b, s, bias=126).to(dtype), 17),
    ("rms_norm", layer_norm, 6.1),
]


@pytest.fixture(scope="module")
def ids(nano):
    """The 222 tokens of one reply with its prompt."""
    reply = nano.chat("What is 347 * 62?", effort="high")
    assert reply.parts == ()
    return [*reply.prompt_tokens, *reply.ids]


@pytest.fixture(scope="module")
def logits(nano, ids):
    return nano.logits(ids)


def largest_change(lab, ids, logits, **parts):
    return float((lab.with_parts(**parts).logits(ids) - logits).abs().max())


@pytest.mark.parametrize("name", [name for name in PARTS if name not in OUTSIDE_THE_MODEL])
def test_a_loop_leaves_the_logits(nano, ids, logits, name):
    assert largest_change(nano, ids, logits, **{name: LOOPS[name]}) < 1e-3


@pytest.mark.parametrize(("name", "wrong", "expected"), WRONG)
def test_a_wrong_part_changes_the_logits(nano, ids, logits, name, wrong, expected):
    assert expected / 2 < largest_change(nano, ids, logits, **{name: wrong}) < expected * 2


def test_a_wrong_window_needs_more_tokens_than_the_window(nano, ids):
    wrong = nano.with_parts(visible_keys=wrong_window(lambda window: window and window - 1))
    few = ids[: nano.config.sliding_window - 1]
    assert torch.equal(wrong.logits(few), nano.logits(few))


def test_the_librarys_own_functions_give_equal_logits(nano, ids, logits):
    own = {name: part.function for name, part in PARTS.items()}
    mask = own.pop("visible_keys")
    assert torch.equal(nano.with_parts(**own).logits(ids), logits)
    # With another mask the layers also read keys outside the window, so sums have more zeros.
    assert largest_change(nano, ids, logits, **own, visible_keys=mask) < 1e-4


def test_nano_answers_on_loops(nano):
    mine = nano.with_parts(**LOOPS)
    reply = mine.chat("What is 34 * 6?", effort="high")
    assert reply.final == "204"
    assert reply.parts == tuple(PARTS)
    assert reply.ids == nano.chat("What is 34 * 6?", effort="high").ids


@pytest.mark.slow
def test_nano_multiplies_on_loops_in_a_minute(nano):
    began = time.perf_counter()
    stream = nano.with_parts(**LOOPS).stream("What is 347 * 62?", effort="high")
    for n, _ in enumerate(stream):  # `pytest -s` shows the progress
        print(f"\r{n} events, {time.perf_counter() - began:.0f} s", end="")
    assert stream.reply.final == "21514"
    assert stream.reply.parts == tuple(PARTS)
    assert time.perf_counter() - began < 60


def test_a_loop_samples_the_same_tokens(nano):
    asking = {"temperature": 5, "seed": 3, "max_tokens": 30}
    mine = nano.with_parts(sample=loop_sample)
    rows = nano.chat_batch(["What is 34 * 6?"] * 3, **asking)
    assert [each.ids for each in mine.chat_batch(["What is 34 * 6?"] * 3, **asking)] == [
        each.ids for each in rows
    ]
    assert len({each.ids for each in rows}) == 3
    worst = nano.with_parts(sample=lambda logits, samplings, draws: [7] * len(logits))
    assert set(worst.chat("What is 34 * 6?", max_tokens=4).ids) == {7}


def test_a_narrow_window_also_applies_to_generated_tokens(nano, ids, logits):
    wrong = nano.with_parts(visible_keys=wrong_window(lambda window: window and 2))
    # Read at once or token by token with a cache, the mask is the same.
    reply = wrong.generate("What is 34 * 6?", max_tokens=20, ignore_stops=True)
    after = wrong.logits([*reply.prompt_tokens, *reply.ids])[len(reply.prompt_tokens) - 1 : -1]
    assert tuple(after[:, nano.usable].argmax(-1).tolist()) == tuple(
        nano.usable.nonzero()[:, 0].tolist().index(id) for id in reply.ids
    )


def test_weights_are_shared_and_other_labs_unaffected(nano, ids, logits):
    def greedy_hands(x, scale, eps):  # writes into everything it gets
        result = PARTS["rms_norm"].function(x, scale, eps)
        x.zero_()
        scale.zero_()
        return result

    mine = nano.with_parts(rms_norm=greedy_hands)
    mine_named, nano_named = dict(mine.model.state_dict()), dict(nano.model.state_dict())
    assert mine_named.keys() == nano_named.keys()
    for name, tensor in mine_named.items():
        assert tensor.data_ptr() == nano_named[name].data_ptr()
    assert torch.equal(mine.logits(ids), logits)
    assert torch.equal(nano.logits(ids), logits)
    assert repr(nano).endswith("reference engine>")
    assert repr(mine).endswith("reference engine, parts replaced: rms_norm>")


def test_a_concurrent_thread_is_unaffected(nano, ids, logits):
    wrong = nano.with_parts(rms_norm=layer_norm)
    expected = wrong.logits(ids)
    found = {"mine": [], "theirs": []}

    def work(name, lab):
        found[name] += [lab.logits(ids) for _ in range(5)]

    threads = [
        threading.Thread(target=work, args=each) for each in (("mine", wrong), ("theirs", nano))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found["mine"]) == len(found["theirs"]) == 5
    assert all(torch.equal(each, expected) for each in found["mine"])
    assert all(torch.equal(each, logits) for each in found["theirs"])


def test_parts_add_up(nano):
    mine = nano.with_parts(swiglu=loop_swiglu).with_parts(sample=loop_sample)
    assert tuple(mine.parts) == ("swiglu", "sample")
    assert tuple(mine.with_parts(swiglu=swiglu_without_one).parts) == ("swiglu", "sample")
    assert nano.parts == {}


def test_replies_and_traces_name_the_parts(nano, tmp_path):
    mine = nano.with_parts(router=loop_router)
    reply = mine.chat("Hi", max_tokens=3, points=["moe.expert_ids"])
    assert reply.parts == ("router",)
    assert repr(reply).endswith("parts replaced: router>")
    assert "parts replaced: router" in reply._repr_html_()
    trace = mine.trace("Hi")
    for each in (reply.trace, trace):
        assert each.origin.parts == ("router",)
        assert repr(each).endswith("parts replaced: router>")
    trace.save(tmp_path / "run.safetensors")
    assert oss_lab.read_trace(tmp_path / "run.safetensors").origin == trace.origin
    plain = nano.trace("Hi")
    assert plain.origin.parts == ()
    assert "parts" not in build_header(plain)["origin"]  # older versions can read the file
    assert "parts" not in repr(plain)


def test_old_origins_have_no_parts(nano):
    origin = nano.trace("Hi").origin
    old = {name: value for name, value in vars(origin).items() if name != "parts"}
    assert type(origin).read(old) == origin


def test_kernels_do_not_run_parts():
    lab = oss_lab.load("nano", kernels="cpu", verbose=False)
    mine = lab.with_parts(router=loop_router)
    reply = mine.chat("Hi", max_tokens=2)
    assert lab.chat("Hi", max_tokens=2).engine == "cpu"
    assert reply.engine == "reference"
    assert reply.engine_reason == "the kernels cannot run replaced parts: router"
    assert lab.with_parts().chat("Hi", max_tokens=2).engine == "cpu"
    assert lab.engines.requested is not None
    with pytest.raises(LabError, match="the cpu kernels cannot run replaced parts"):
        KernelEngine(mine.model, lab.engines.requested)


def test_gradients_pass_through_torch_but_not_through_lists(nano):
    expected = nano.gradients("Hi", 7)["embed"]
    own = PARTS["rms_norm"].function
    mine = nano.with_parts(rms_norm=lambda x, scale, eps: own(x, scale, eps))
    assert abs(mine.gradients("Hi", 7)["embed"] - expected).max() < 1e-4 * abs(expected).max()
    with pytest.raises(LabError, match="the part rms_norm returned a tensor without gradient"):
        nano.with_parts(rms_norm=loop_rms_norm).gradients("Hi", 7)


def test_a_slow_part_is_named(nano, monkeypatch):
    monkeypatch.setattr(slow_parts, "SLOW", 0.0)
    mine = nano.with_parts(swiglu=loop_swiglu, rotate=PARTS["rotate"].function)
    sentence = r"generation took \d+ s, \d+% of it in the part swiglu"
    with pytest.warns(UserWarning, match=sentence) as caught:
        mine.chat("Hi", max_tokens=8)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=sentence):
        mine.chat_batch(["Hi"], max_tokens=8)


def test_a_fast_part_is_not_blamed(nano, monkeypatch, recwarn):
    monkeypatch.setattr(slow_parts, "SLOW", 0.0)
    nano.with_parts(sample=PARTS["sample"].function).chat("Hi", max_tokens=8)
    assert not recwarn.list


def test_a_slow_renderer_is_named(nano, monkeypatch):
    monkeypatch.setattr(slow_parts, "SLOW", 0.5)

    def slow_render(message, encoding):
        time.sleep(1)
        return loop_render(message, encoding)

    with pytest.warns(UserWarning, match="of it in the part render"):
        nano.with_parts(render=slow_render).chat("Hi", max_tokens=1)
