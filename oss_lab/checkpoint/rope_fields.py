"""Read RoPE's fields of a Hugging Face config.json.

They are under `rope_scaling`, or under `rope_parameters` in transformers 5, where rope_theta is one
of them. An absent `truncate` means true there, which is not implemented.
"""

import math
from typing import Any

from oss_lab.checkpoint.fields import FieldReader, shorten_json

ROPE = (
    "initial_context_length",
    "rope_theta",
    "rope_scaling_factor",
    "rope_ntk_alpha",
    "rope_ntk_beta",
)


def read_rope(reader: FieldReader) -> dict[str, Any]:
    """Read RoPE's fields of the Hugging Face dialect; None for those that cannot be used."""
    newer = "rope_parameters" in reader.fields
    if newer and reader.fields.get("rope_scaling", {}) in (None, reader.fields["rope_parameters"]):
        reader.fields.pop("rope_scaling")  # the same values
    if newer and "rope_scaling" in reader.fields:
        reader.add_problem("rope_scaling", "and rope_parameters are both present; keep one of them")
        del reader.fields["rope_scaling"]
    values: dict[str, Any] = dict.fromkeys(ROPE)
    outer_theta = reader.take_number("rope_theta", None)
    rope = reader.take_object("rope_parameters" if newer else "rope_scaling")
    if rope is None:
        return values
    rope.expect("rope_type", "yarn", required="type" not in rope.fields)
    rope.expect("type", "yarn")  # the old name of rope_type
    for field in ("beta_fast", "beta_slow"):  # here, null means the default
        if rope.fields.get(field, 0) is None:
            del rope.fields[field]
    values["initial_context_length"] = rope.take_size("original_max_position_embeddings")
    values["rope_scaling_factor"] = rope.take_number("factor", least=1.0)
    values["rope_ntk_beta"] = rope.take_number("beta_fast", 32.0)
    values["rope_ntk_alpha"] = rope.take_number("beta_slow", 1.0)
    theta = rope.take_number("rope_theta", outer_theta)
    if theta is None and not any(p.field.endswith("rope_theta") for p in reader.problems):
        reader.add_problem("rope_theta", "is missing")
    if None not in (theta, outer_theta) and theta != outer_theta:
        rope.add_problem(
            "rope_theta", f"is {theta:g}, but at the top level {outer_theta:g}; they must agree"
        )
    values["rope_theta"] = theta
    if "truncate" not in rope.fields:
        rope.add_problem("truncate", "is absent, which means true; only false is implemented")
    rope.expect("truncate", False)
    _read_attention_factor(rope, values["rope_scaling_factor"])
    for field in ("mscale", "mscale_all_dim"):
        rope.expect(field, None)
    rope.expect("partial_rotary_factor", None, 1, 1.0)
    rope.refuse_the_rest()
    return values


def _read_attention_factor(rope: FieldReader, scaling: float | None) -> None:
    """Take `attention_factor`, which may be null or YaRN's own factor, to float32 precision."""
    factor = rope.take("attention_factor", None)
    if factor is None or scaling is None:
        return
    default = 0.1 * math.log(scaling) + 1
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not is_number or not math.isclose(factor, default, rel_tol=1e-6):
        what = f"only YaRN's own, {default!r} or null, is implemented"
        rope.add_problem("attention_factor", f"is {shorten_json(factor)}; {what}")
