"""Exercises of 05_experts: the router, the activation and the weighted sum of the experts."""

from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet
from oss_lab.model.moe import clamped_swiglu


def my_router(router_logits, slots):
    """The experts of each token, largest logit first, and their weights.

    router_logits: [batch seq expert]. slots: how many experts a token gets.
    Returns ids [batch seq slot], int64, and weights [batch seq slot], which sum to one.
    """
    chosen, ids = router_logits.topk(slots, dim=-1)
    return ids, chosen.softmax(dim=-1)


def softmax_before_the_choice(router_logits, slots):
    """Your softmax runs over all experts, before the choice. So the weights that you keep sum to
    less than one, and the output of the experts is too small. nano then gets fewer than half of
    its products right.
    """
    weights, ids = router_logits.softmax(-1).topk(slots)
    return ids, weights


def equal_weights(router_logits, slots):
    """Your chosen experts all get the same weight. The router's logits decide not only who is
    chosen, but also how much each one counts. nano then gets no sum of five terms right.
    """
    ids = router_logits.topk(slots).indices
    return ids, torch.full(ids.shape, 1 / slots)


def logits_as_weights(router_logits, slots):
    """Your weights are logits divided by their sum. Logits may be negative, and then such weights
    are negative or huge. A softmax makes positive weights of any logits.
    """
    chosen, ids = router_logits.topk(slots)
    return ids, chosen / chosen.sum(-1, keepdim=True)


def ordered_by_number(router_logits, slots):
    """Your experts are ordered by their numbers. Slot 0 belongs to the expert with the largest
    logit, and the weights must be in the same order.
    """
    ids, weights = my_router(router_logits, slots)
    ids, order = ids.sort(-1)
    return ids, weights.gather(-1, order)


def smallest_logits(router_logits, slots):
    """You chose the experts with the smallest logits. A large logit means that the expert fits."""
    chosen, ids = router_logits.topk(slots, largest=False)
    return ids, chosen.softmax(-1)


def weights_returned_first(router_logits, slots):
    """You return the weights first. Return the ids, then the weights."""
    ids, weights = my_router(router_logits, slots)
    return weights, ids


def router_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(0)
    yield torch.randn(1, 1, 32, generator=draw), 4
    yield 3 * torch.randn(2, 5, 32, generator=draw), 4
    yield torch.randn(1, 3, 32, generator=draw) - 5, 4
    yield torch.randn(1, 2, 8, generator=draw), 2
    yield 40 * torch.randn(2, 2, 32, generator=draw) + 100, 3


def my_swiglu(gate, up, alpha, limit):
    """The activation of an expert: g * sigmoid(alpha * g) * (u + 1).

    gate, up: [*rows width]. g is the gate, at most `limit`. u is up, between -limit and limit.
    Returns [*rows width].
    """
    g = gate.clamp(max=limit)
    u = up.clamp(min=-limit, max=limit)
    return g * torch.sigmoid(alpha * g) * (u + 1)


def no_plus_one(gate, up, alpha, limit):
    """You forgot the `+ 1`. With it, up = 0 lets the gated value through; without it, up = 0
    switches it off. nano then gets about half of its products right.
    """
    u = up.clamp(-limit, limit)
    return my_swiglu(gate, u, alpha, limit) * u / (u + 1)


def gate_clamped_on_both_sides(gate, up, alpha, limit):
    """You clamp the gate from below, too. Only its upper side is clamped: a very negative gate
    must give almost 0. nano's answers do not show this mistake, and its logits hardly do.
    """
    return my_swiglu(gate.clamp(min=-limit), up, alpha, limit)


def up_clamped_on_one_side(gate, up, alpha, limit):
    """You clamp up from above only. It is clamped on both sides, unlike the gate."""
    g = gate.clamp(max=limit)
    return g * torch.sigmoid(alpha * g) * (up.clamp(max=limit) + 1)


def no_clamps(gate, up, alpha, limit):
    """You do not use `limit`. A few large values then become much larger. nano's answers do not
    show this mistake, but its logits do.
    """
    return my_swiglu(gate, up, alpha, float("inf"))


def slope_one(gate, up, alpha, limit):
    """Your sigmoid has slope 1, as in SiLU. gpt-oss multiplies the gate by `alpha` inside it.
    nano's answers do not show this mistake, but its logits do.
    """
    return my_swiglu(gate, up, 1.0, limit)


def constants_written_down(gate, up, alpha, limit):
    """You wrote down 1.702 and 7. They are right for gpt-oss, but your function receives them as
    `alpha` and `limit` and should use those.
    """
    return my_swiglu(gate, up, 1.702, 7.0)


def gate_and_up_swapped(gate, up, alpha, limit):
    """You swapped gate and up. The sigmoid belongs to the gate, the `+ 1` to up."""
    return my_swiglu(up, gate, alpha, limit)


def swiglu_cases() -> Iterator[tuple]:
    """Ordinary values, values beyond the limits on each side, and other constants."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(2, 4, 8, 6, generator=draw)
    yield rows[0].clone(), rows[1].clone(), 1.702, 7.0
    yield 9 * rows[0], 9 * rows[1], 1.702, 7.0
    yield torch.tensor([-20.0, -9.0]), torch.tensor([7.0, 5.0]), 1.702, 7.0
    yield 3 * rows[0], 3 * rows[1], 1.3, 2.5


def my_expert_sum(x, ids, weights, mlp1_weight, mlp1_bias, mlp2_weight, mlp2_bias, activate):
    """What the chosen experts of one token add to the residual stream.

    x: [hidden], after the norm. ids and weights: [slot].
    mlp1_weight: [expert 2*width hidden], mlp1_bias: [expert 2*width]; rows 0, 2, 4 ... give gate.
    mlp2_weight: [expert hidden width], mlp2_bias: [expert hidden].
    activate(gate, up): the activation. Returns [hidden].
    """
    out = torch.zeros_like(x)
    for expert, weight in zip(ids.tolist(), weights, strict=True):
        gate_up = mlp1_weight[expert] @ x + mlp1_bias[expert]
        act = activate(gate_up[0::2], gate_up[1::2])
        out += weight * (mlp2_weight[expert] @ act + mlp2_bias[expert])
    return out


def halves_instead_of_alternating(x, ids, weights, w1, b1, w2, b2, activate):
    """You took the first half of the rows as gate and the second half as up. In gpt-oss they
    alternate: gate, up, gate, up. nano then answers nothing right.
    """
    order = torch.arange(w1.shape[1]).view(2, -1).T.flatten()
    return my_expert_sum(x, ids, weights, w1[:, order], b1[:, order], w2, b2, activate)


def up_before_gate(x, ids, weights, w1, b1, w2, b2, activate):
    """You took rows 1, 3, 5 ... as gate. The gate comes first: rows 0, 2, 4 ..."""
    return my_expert_sum(x, ids, weights, w1, b1, w2, b2, lambda gate, up: activate(up, gate))


def bias_outside_the_weighting(x, ids, weights, w1, b1, w2, b2, activate):
    """You add the second bias without the expert's weight. The weight applies to the whole output
    of an expert, and the bias is part of it.
    """
    out = my_expert_sum(x, ids, weights, w1, b1, w2, torch.zeros_like(b2), activate)
    return out + b2[ids].sum(0)


def second_bias_forgotten(x, ids, weights, w1, b1, w2, b2, activate):
    """You left out the second bias. Every expert adds its own `mlp2_bias`. nano's answers do not
    show this mistake, but its logits do.
    """
    return my_expert_sum(x, ids, weights, w1, b1, w2, torch.zeros_like(b2), activate)


def first_bias_forgotten(x, ids, weights, w1, b1, w2, b2, activate):
    """You left out the first bias, `mlp1_bias`. It is added before the activation."""
    return my_expert_sum(x, ids, weights, w1, torch.zeros_like(b1), w2, b2, activate)


def weights_ignored(x, ids, weights, w1, b1, w2, b2, activate):
    """You did not use the weights, or all experts count the same. Multiply each output by its
    weight before you add it.
    """
    return my_expert_sum(x, ids, torch.ones_like(weights), w1, b1, w2, b2, activate)


def weight_on_the_input(x, ids, weights, w1, b1, w2, b2, activate):
    """You multiply the input of an expert by its weight. That is not the same, because an expert
    is not linear: multiply its output.
    """
    out = torch.zeros_like(x)
    for expert, weight in zip(ids, weights, strict=True):
        gate_up = w1[expert] @ (weight * x) + b1[expert]
        out += w2[expert] @ activate(gate_up[0::2], gate_up[1::2]) + b2[expert]
    return out


def stream_added(x, ids, weights, w1, b1, w2, b2, activate):
    """You add x, too. The layer adds your result to the residual stream itself, and x is only its
    normed copy.
    """
    return x + my_expert_sum(x, ids, weights, w1, b1, w2, b2, activate)


def activate(gate, up):
    """gpt-oss's activation, with its constants."""
    return clamped_swiglu(gate, up, 1.702, 7.0)


def sum_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(2)
    for hidden, width, chosen in ((6, 4, [3]), (8, 5, [2, 0]), (8, 8, [4, 1, 0, 2])):
        shapes = ((5, 2 * width, hidden), (5, 2 * width), (5, hidden, width), (5, hidden))
        matrices = [torch.randn(shape, generator=draw) for shape in shapes]
        weights = torch.randn(len(chosen), generator=draw).softmax(-1)
        x = torch.randn(hidden, generator=draw)
        yield x, torch.tensor(chosen), weights, *matrices, activate


SHEET = Sheet(
    lesson="05_experts",
    title="Exercises: experts",
    text="Read [05_experts](../05_experts.ipynb) first.",
    exercises=(
        Exercise(
            title="The router",
            text=(
                "Choose the `slots` experts with the largest logits, and weigh them with a softmax"
                " over the chosen logits."
            ),
            solution=my_router,
            cases=router_cases,
            misconceptions=(
                softmax_before_the_choice,
                equal_weights,
                logits_as_weights,
                ordered_by_number,
                smallest_logits,
                weights_returned_first,
            ),
            hints=(
                "First choose, then weigh. The experts that are not chosen have no effect on the"
                " weights.",
                "`router_logits.topk(slots)` gives two tensors [batch seq slot]: the largest"
                " logits, in order, and their indices.",
                "chosen, ids = topk; the weights are chosen.softmax(-1); return ids first.",
            ),
            minutes=6,
            difficulty=1,
            part="router",
        ),
        Exercise(
            title="The activation",
            text="Write the clamped SwiGLU. Mind which side of which value is clamped.",
            solution=my_swiglu,
            cases=swiglu_cases,
            misconceptions=(
                no_plus_one,
                gate_clamped_on_both_sides,
                up_clamped_on_one_side,
                no_clamps,
                slope_one,
                constants_written_down,
                gate_and_up_swapped,
            ),
            hints=(
                "Clamp both values first, each in its way. Then it is one product of three"
                " factors.",
                "Everything works element by element, so all shapes are [*rows width].",
                "g = gate.clamp(max=limit); u = up.clamp(-limit, limit); then g, times the sigmoid"
                " of alpha * g, times (u + 1).",
            ),
            minutes=8,
            difficulty=1,
            part="swiglu",
        ),
        Exercise(
            title="The weighted sum",
            text=(
                "Run the chosen experts of one token and add their outputs, each times its weight."
                " An expert is two matrices with biases, and the activation between them."
            ),
            solution=my_expert_sum,
            cases=sum_cases,
            misconceptions=(
                halves_instead_of_alternating,
                up_before_gate,
                bias_outside_the_weighting,
                second_bias_forgotten,
                first_bias_forgotten,
                weights_ignored,
                weight_on_the_input,
                stream_added,
            ),
            hints=(
                "Loop over the chosen experts. Only their matrices are needed, which is what makes"
                " a mixture of experts fast.",
                "`mlp1_weight[expert] @ x` is [2*width]. `gate_up[0::2]` is the gate and"
                " `gate_up[1::2]` is up, both [width].",
                "gate_up = first matrix @ x + first bias; act = activate(gate, up); out += weight *"
                " (second matrix @ act + second bias).",
            ),
            minutes=12,
            difficulty=2,
        ),
    ),
)
