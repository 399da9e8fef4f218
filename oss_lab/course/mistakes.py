"""The table of mistakes: what one wrong line of an implementation of gpt-oss does, and where.

    wrong = MISTAKES["sinks dropped"].make(lab)      # a new Lab; `lab` itself does not change
    wrong.chat("What is 347 * 62?")                  # right: no answer of nano shows this mistake

A row names a line of this library (`before`) and the wrong line (`after`). `make` builds a lab that
computes as if the line were changed: with a wrong part (`wrong_parts.py`), or with changed weights
(`wrong_weights.py`). `python -m oss_lab.course.measure_mistakes` measures what each row does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from oss_lab.course import wrong_parts as wrong
from oss_lab.course import wrong_weights as weights
from oss_lab.lab.workbench import Lab
from oss_lab.model.transformer import Transformer

Concept = Literal[
    "rope", "yarn", "window", "attention", "sinks", "router", "swiglu", "bias", "mxfp4", "norm"
]
Effect = Literal["breaks", "worse", "logits", "hidden"]
EFFECTS: dict[Effect, str] = {
    "breaks": "Everything breaks",
    "worse": "It gets worse, differently by task",
    "logits": "No answer changes; logits do",
    "hidden": "Not even the logits",
}
"""What a mistake changes in nano; the keys are in order, from the largest change."""


@dataclass(frozen=True)
class Mistake:
    """One wrong line.

    Attributes:
        concept: the part of the architecture that it belongs to.
        effect: what it changed in an earlier measurement, with fewer problems.
        file, before, after: a line of this library, and the wrong line instead.
        made_by: how `make` gets the same result without changing the library.
    """

    name: str
    concept: Concept
    effect: Effect
    file: str
    before: str
    after: str
    made_by: str
    make: Callable[[Lab], Lab]


ROPE, MOE, NORM = "oss_lab/model/rope.py", "oss_lab/model/moe.py", "oss_lab/model/norm.py"
ATTENTION, MXFP4 = "oss_lab/model/attention.py", "kernels/oss_kernels/mxfp4/reference.py"
RAMP = "return unscaled * (1 - ramp) + unscaled / factor * ramp"
SWAPPED = "swapped = x.roll(x.shape[-1] // 2, dims=-1)"
VISIBLE = "return visible if window is None else visible & (back < window)"
WEIGHTS = "return chosen.softmax(dim=-1, dtype=torch.float32).to(router_logits.dtype)"
SLOTS = "self.num_experts, self.slots = experts, config.experts_per_token"
SWIGLU = "return (g * torch.sigmoid(alpha * g) * (u + 1)).to(gate.dtype)"
GATE = "g = gate.float().clamp(max=limit)"
GATE_UP = "return gate_up[..., 0::2], gate_up[..., 1::2]"
NIBBLES = "torch.stack((blocks & 0x0F, blocks >> 4), dim=-1)"
POWERS = "powers = torch.ldexp(ones, scales.int() - SCALE_BIAS).to(dtype)"
MAGNITUDES = "E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)"
SIGNS = "tuple(-magnitude for magnitude in E2M1_MAGNITUDES)"
WIDE = "wide = x.float()\n"
RSQRT = "torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)"
COLUMN = "column = sinks[:, :, None, None].expand(*scores.shape[:-1], 1)"
SINKS = "self.sinks.float().expand(x.shape[0], -1)"


def part(name: str, function: wrong.Function) -> tuple[str, Callable[[Lab], Lab]]:
    """How a mistake is made with one wrong part."""
    return f"the part {name}", lambda lab: lab.with_parts(**{name: function})


def part_of(name: str, make: Callable[[Lab], wrong.Function]) -> tuple[str, Callable[[Lab], Lab]]:
    """The same, for a part that depends on the model's configuration."""
    return f"the part {name}", lambda lab: lab.with_parts(**{name: make(lab)})


def edit(what: str, change: Callable[[Transformer], None]) -> tuple[str, Callable[[Lab], Lab]]:
    """How a mistake is made with changed weights."""
    return f"a copy of the weights: {what}", lambda lab: weights.with_weights(lab, change)


def mask(change: Callable[[int], int | None]) -> tuple[str, Callable[[Lab], Lab]]:
    return part("visible_keys", wrong.change_window(change))


TABLE = (
    Mistake(
        "rotation backward", "rope", "breaks", ROPE,
        "return x * cos + swapped * sin", "return x * cos - swapped * sin",
        *part("rotate", wrong.rotate_backward),
    ),
    Mistake(
        "neighboring pairs", "rope", "breaks", ROPE,
        SWAPPED, f"x = x.unflatten(-1, (-1, 2)).mT.flatten(-2); {SWAPPED}",
        *part("rotate", wrong.rotate_neighbors),
    ),
    Mistake(
        "plain frequencies", "yarn", "breaks", ROPE, RAMP, "return unscaled",
        *part("yarn_frequencies", wrong.plain_frequencies),
    ),
    Mistake(
        "all pairs slowed", "yarn", "breaks", ROPE, RAMP, "return unscaled / factor",
        *part("yarn_frequencies", wrong.slow_all_pairs),
    ),
    Mistake(
        "no window", "window", "breaks", ATTENTION, VISIBLE, "return visible",
        *mask(lambda window: None),
    ),
    Mistake(
        "gate and up in halves", "swiglu", "breaks", MOE, GATE_UP,
        "return gate_up.chunk(2, dim=-1)",
        *part("split_gate_up", lambda gate_up: gate_up.chunk(2, dim=-1)),
    ),
    Mistake(
        "nibbles swapped", "mxfp4", "breaks", MXFP4,
        NIBBLES, "torch.stack((blocks >> 4, blocks & 0x0F), dim=-1)",
        *part("mxfp4", wrong.swap_nibbles),
    ),
    Mistake(
        "scales one too large", "mxfp4", "breaks", MXFP4,
        POWERS, POWERS.replace("SCALE_BIAS", "SCALE_BIAS + 1"),
        *part("mxfp4", wrong.raise_scales),
    ),
    Mistake(
        "sign ignored", "mxfp4", "breaks", MXFP4, SIGNS, "E2M1_MAGNITUDES",
        *part("mxfp4", wrong.ignore_sign),
    ),
    Mistake(
        "q, k, v bias dropped", "bias", "breaks", ATTENTION,
        "self.qkv(normed)", "(normed @ self.qkv.weight.T)",
        *edit("this bias is 0", weights.drop_attention_bias),
    ),
    Mistake(
        "concentration 1", "yarn", "worse", ROPE,
        "scale = yarn_concentration(config.rope_scaling_factor)", "scale = 1.0",
        *part("yarn_concentration", lambda factor: 1.0),
    ),
    Mistake(
        "half the window", "window", "worse", ATTENTION,
        VISIBLE, VISIBLE.replace("< window", "< window // 2"),
        *mask(lambda window: window // 2),
    ),
    Mistake(
        "scores not divided", "attention", "worse", ATTENTION,
        "return query_key_scores(q * q.shape[-1] ** -0.5, k)", "return query_key_scores(q, k)",
        *edit("queries are multiplied by sqrt(head_dim)", weights.scale_queries),
    ),
    Mistake(
        "softmax before the choice", "router", "worse", MOE, WEIGHTS,
        "return router_logits.softmax(dim=-1).gather(-1, ids)",
        *part("router", wrong.softmax_first),
    ),
    Mistake(
        "equal weights", "router", "worse", MOE,
        WEIGHTS, "return torch.full_like(chosen, 1 / ids.shape[-1])",
        *part("router", wrong.weigh_equally),
    ),
    Mistake(
        "one expert", "router", "worse", MOE, SLOTS,
        "self.num_experts, self.slots = experts, 1",
        *part("router", wrong.use_experts(1)),
    ),
    Mistake(
        "no + 1", "swiglu", "worse", MOE, SWIGLU, SWIGLU.replace("(u + 1)", "u"),
        *part("swiglu", wrong.leave_out_one),
    ),
    Mistake(
        "gate and up swapped", "swiglu", "worse", MOE,
        "self.swiglu(gate, up, ", "self.swiglu(up, gate, ",
        *part("swiglu", wrong.swap_gate_and_up),
    ),
    Mistake(
        "scales of the neighboring block", "mxfp4", "worse", MXFP4,
        POWERS, POWERS.replace("scales.int()", "scales.roll(1, -1).int()"),
        *part("mxfp4", wrong.shift_scales),
    ),
    Mistake(
        "limits rounded", "yarn", "worse", ROPE,
        "return max(low, 0.0), min(high, config.head_dim - 1.0)",
        "return max(math.floor(low), 0.0), min(math.ceil(high), config.head_dim - 1.0)",
        *part("yarn_frequencies", wrong.round_limits),
    ),
    Mistake(
        "window + 1", "window", "worse", ATTENTION,
        VISIBLE, VISIBLE.replace("<", "<="), *mask(lambda window: window + 1),
    ),
    Mistake(
        "three experts", "router", "logits", MOE, SLOTS,
        "self.num_experts, self.slots = experts, 3",
        *part("router", wrong.use_experts(3)),
    ),
    Mistake(
        "mean subtracted", "norm", "logits", NORM,
        WIDE, "wide = x.float() - x.float().mean(-1, keepdim=True)\n",
        *part("rms_norm", wrong.subtract_mean),
    ),
    Mistake(
        "router bias dropped", "bias", "logits", MOE,
        "self.gate(normed)", "normed @ self.gate.weight.T",
        *edit("this bias is 0", weights.drop_router_bias),
    ),
    Mistake(
        "slope 1", "swiglu", "logits", MOE, SWIGLU, SWIGLU.replace("alpha * g", "g"),
        *part("swiglu", wrong.use_slope_1),
    ),
    Mistake(
        "6 read as 4", "mxfp4", "logits", MXFP4, MAGNITUDES, MAGNITUDES.replace("6.0", "4.0"),
        *part("mxfp4", wrong.cut_sixes),
    ),
    Mistake(
        "sinks dropped", "sinks", "logits", ATTENTION,
        COLUMN, "column = torch.full_like(scores[..., :1], -torch.inf)",
        *part("softmax_with_sink", wrong.drop_sinks),
    ),
    Mistake(
        "sinks scaled", "sinks", "logits", ATTENTION, SINKS, f"{SINKS} * self.head_dim**-0.5",
        *part_of("softmax_with_sink", lambda lab: wrong.scale_sinks(lab.config.head_dim**-0.5)),
    ),
    Mistake(
        "window - 1", "window", "logits", ATTENTION,
        VISIBLE, VISIBLE.replace("< window", "< window - 1"), *mask(lambda window: window - 1),
    ),
    Mistake(
        "expert output bias dropped", "bias", "logits", MOE,
        "self.mlp2_weight, self.mlp2_bias)", "self.mlp2_weight, self.mlp2_bias * 0)",
        *edit("this bias is 0", weights.drop_output_bias),
    ),
    Mistake(
        "epsilon 1e-2", "norm", "logits", NORM, RSQRT, RSQRT.replace("eps", "1e-2"),
        *part("rms_norm", wrong.use_epsilon(1e-2)),
    ),
    Mistake(
        "no clamps", "swiglu", "logits", MOE,
        "config.swiglu_alpha, config.swiglu_limit", 'config.swiglu_alpha, float("inf")',
        *part("swiglu", wrong.leave_out_clamps),
    ),
    Mistake(
        "epsilon 1e-6", "norm", "hidden", NORM, RSQRT, RSQRT.replace("eps", "1e-6"),
        *part("rms_norm", wrong.use_epsilon(1e-6)),
    ),
    Mistake(
        "gate clamped on both sides", "swiglu", "hidden", MOE,
        GATE, GATE.replace("max=limit", "-limit, limit"),
        *part("swiglu", wrong.clamp_gate_twice),
    ),
)  # fmt: skip
MISTAKES = {each.name: each for each in TABLE}
