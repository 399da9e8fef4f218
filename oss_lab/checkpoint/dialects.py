"""The two spellings of config.json, and what each field of them means for the arithmetic.

Every field is honored at any value that the model implements, or refused by name: one that is
not understood may change the arithmetic, so it is never passed over. Only the bookkeeping listed
here is. The original dialect is flat; Hugging Face's nests RoPE under `rope_scaling`, in
transformers 5 `rope_parameters`, and has defaults of its own: `truncate` absent means true there.

The original dialect has no field for layer types, norm epsilon and sigmoid slope; where a model
has others than the published ones, they are written under our names for them, which the reference
implementation refuses to load rather than ignores. Sources: gpt-oss v0.0.9, transformers 5.23.0.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oss_lab.checkpoint.fields import FieldReader, Problem, shown
from oss_lab.checkpoint.layouts import Layout
from oss_lab.config import LAYER_TYPES, ModelConfig, contradictions

MOST_LAYERS = 10_000
SIZES = (
    "num_hidden_layers",
    "num_experts",
    "experts_per_token",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "sliding_window",
    "initial_context_length",
)
ROPE = (
    "initial_context_length",
    "rope_theta",
    "rope_scaling_factor",
    "rope_ntk_alpha",
    "rope_ntk_beta",
)
# Not in the published original file: left out where they have the published value.
UNPUBLISHED = ("rms_norm_eps", "swiglu_alpha", "layer_types")
PUBLISHED_DEFAULTS = ModelConfig()

HUGGINGFACE_NAMES = {
    "num_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "initial_context_length": "rope_scaling.original_max_position_embeddings",
    "rope_scaling_factor": "rope_scaling.factor",
    "rope_ntk_alpha": "rope_scaling.beta_slow",
    "rope_ntk_beta": "rope_scaling.beta_fast",
}
"""ModelConfig's names that differ there; `rope_scaling` may also be `rope_parameters`."""

SHAPING = {*SIZES, "layer_types"} - {"sliding_window", "initial_context_length"}
SHAPING |= {HUGGINGFACE_NAMES.get(name, name) for name in SHAPING}
"""Fields, in either dialect, that say which tensors there are or are held against one that does."""

HUGGINGFACE_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (True,),
    "tie_word_embeddings": (False,),
    "hidden_act": ("silu",),  # the name misleads: it is the clamped SwiGLU of `swiglu_alpha`
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "is_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    "architectures": (["GptOssForCausalLM"], None),
}
"""Fields that would change the arithmetic at any other value; the first one is the default."""

HUGGINGFACE_BOOKKEEPING = {
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "max_position_embeddings",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
}
"""Fields without influence on the logits of a forward pass: training, generation, provenance."""

MXFP4_QUANTIZATION = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}


def dialect_of(fields: Mapping[str, Any]) -> Layout:
    """Tell whose config.json this is: only Hugging Face's names a model_type or architectures."""
    named = {"model_type", "architectures", "num_local_experts"} & fields.keys()
    return "huggingface" if named else "original"


def examine_config(fields: Mapping[str, Any]) -> tuple[ModelConfig | None, list[Problem]]:
    """Read either dialect: the configuration, or None and everything that is wrong, in order.

    The order is that of ModelConfig's fields, then fixed fields, then fields not understood,
    alphabetically, then contradictions between fields, where each that is compared is in order.
    """
    values, reader = _read(fields)
    shaping = SHAPING & {problem.field for problem in reader.problems}
    if shaping or None in (values[name] for name in ROPE):
        return None, reader.problems
    config = _with_defaults(values)
    names = HUGGINGFACE_NAMES if dialect_of(fields) == "huggingface" else {}
    if "rope_parameters" in fields:
        names = {n: their.replace("rope_scaling", "rope_parameters") for n, their in names.items()}
    for field, what in contradictions(config):
        what = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), what)
        reader.complain(names.get(field, field), what)
    return (None, reader.problems) if reader.problems else (config, [])


def shapes_of(fields: Mapping[str, Any]) -> ModelConfig | None:
    """A configuration with the tensors of this one, whatever else is wrong with it.

    None where a field of SHAPING is wrong; what cannot be used otherwise has its default here.
    """
    config, problems = examine_config(fields)
    if config is None and not SHAPING & {problem.field for problem in problems}:
        return _with_defaults(_read(fields)[0])
    return config


def _with_defaults(values: dict[str, Any]) -> ModelConfig:
    return ModelConfig(**{name: value for name, value in values.items() if value is not None})


def original_fields(config: ModelConfig) -> dict[str, Any]:
    """Spell `config` as the original config.json, which holds the sixteen published fields."""
    published = asdict(ModelConfig(num_hidden_layers=config.num_hidden_layers))
    return {
        name: value
        for name, value in asdict(config).items()
        if name not in UNPUBLISHED or value != published[name]
    }


def huggingface_fields(config: ModelConfig) -> dict[str, Any]:
    """Spell `config` as the published Hugging Face config.json; transformers 4 and 5 read it."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "experts_per_token": config.experts_per_token,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initial_context_length": config.initial_context_length,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": list(config.layer_types),
        "max_position_embeddings": config.max_context_length,
        "model_type": "gpt_oss",
        "num_attention_heads": config.num_attention_heads,
        "num_experts_per_tok": config.experts_per_token,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "num_local_experts": config.num_experts,
        "quantization_config": MXFP4_QUANTIZATION,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": {
            "beta_fast": config.rope_ntk_beta,
            "beta_slow": config.rope_ntk_alpha,
            "factor": config.rope_scaling_factor,
            "original_max_position_embeddings": config.initial_context_length,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": config.rope_theta,
        "router_aux_loss_coef": 0.9,
        "sliding_window": config.sliding_window,
        "swiglu_alpha": config.swiglu_alpha,
        "swiglu_limit": config.swiglu_limit,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    } | _special_token_ids(config)


def _special_token_ids(config: ModelConfig) -> dict[str, int]:
    published = config.vocab_size == PUBLISHED_DEFAULTS.vocab_size  # then it is o200k_harmony
    return {"eos_token_id": 200002, "pad_token_id": 199999} if published else {}


def _read(fields: Mapping[str, Any]) -> tuple[dict[str, Any], FieldReader]:
    reader = FieldReader(dict(fields), [])
    huggingface = dialect_of(fields) == "huggingface"
    values = _read_huggingface(reader) if huggingface else _read_original(reader)
    reader.refuse_the_rest()
    return values, reader


def _read_original(reader: FieldReader) -> dict[str, Any]:
    values: dict[str, Any] = {name: reader.size(name) for name in SIZES}
    values["swiglu_limit"] = reader.number("swiglu_limit")
    values["rope_theta"] = reader.number("rope_theta")
    values["rope_scaling_factor"] = reader.number("rope_scaling_factor", least=1.0)
    values["rope_ntk_alpha"] = reader.number("rope_ntk_alpha")
    values["rope_ntk_beta"] = reader.number("rope_ntk_beta")
    values["rms_norm_eps"] = reader.number("rms_norm_eps", PUBLISHED_DEFAULTS.rms_norm_eps)
    values["swiglu_alpha"] = reader.number("swiglu_alpha", PUBLISHED_DEFAULTS.swiglu_alpha)
    values["layer_types"] = _layer_types(reader, values["num_hidden_layers"])
    return values


def _read_huggingface(reader: FieldReader) -> dict[str, Any]:
    reader.expect("model_type", "gpt_oss", required=True)
    values: dict[str, Any] = {
        name: reader.size(HUGGINGFACE_NAMES.get(name, name))
        for name in SIZES
        if name != "initial_context_length"
    }
    values["swiglu_limit"] = reader.number("swiglu_limit", PUBLISHED_DEFAULTS.swiglu_limit)
    values["swiglu_alpha"] = reader.number("swiglu_alpha", PUBLISHED_DEFAULTS.swiglu_alpha)
    values["rms_norm_eps"] = reader.number("rms_norm_eps")
    values["layer_types"] = _layer_types(reader, values["num_hidden_layers"])
    values |= _read_rope(reader)
    _must_agree(reader, "experts_per_token", "num_experts_per_tok", values["experts_per_token"])
    _must_agree(reader, "num_experts", "num_local_experts", values["num_experts"])
    original = "original_max_position_embeddings"
    _must_agree(reader, "initial_context_length", original, values["initial_context_length"])
    for field, allowed in HUGGINGFACE_FIXED.items():
        reader.expect(field, *allowed)
    if reader.fields.get("quantization_config", {}) is None:
        del reader.fields["quantization_config"]
    if "quantization_config" in reader.fields:
        _read_quantization(reader.nested("quantization_config"))
    for field in HUGGINGFACE_BOOKKEEPING:
        reader.fields.pop(field, None)
    return values


def _read_rope(reader: FieldReader) -> dict[str, Any]:
    newer = "rope_parameters" in reader.fields
    if newer and "rope_scaling" in reader.fields:
        reader.complain("rope_scaling", "and rope_parameters are both there; keep one of them")
        del reader.fields["rope_scaling"]
    values: dict[str, Any] = dict.fromkeys(ROPE)
    outer_theta = reader.number("rope_theta", None)
    rope = reader.nested("rope_parameters" if newer else "rope_scaling")
    if rope is None:
        return values
    rope.expect("rope_type", "yarn", required="type" not in rope.fields)
    rope.expect("type", "yarn")  # its name in old versions
    for field in ("beta_fast", "beta_slow"):  # null means the default there
        if rope.fields.get(field, 0) is None:
            del rope.fields[field]
    values["initial_context_length"] = rope.size("original_max_position_embeddings")
    values["rope_scaling_factor"] = rope.number("factor", least=1.0)
    values["rope_ntk_beta"] = rope.number("beta_fast", 32.0)
    values["rope_ntk_alpha"] = rope.number("beta_slow", 1.0)
    theta = rope.number("rope_theta", outer_theta)
    if theta is None and not any(p.field.endswith("rope_theta") for p in reader.problems):
        reader.complain("rope_theta", "is missing")
    if None not in (theta, outer_theta) and theta != outer_theta:
        rope.complain("rope_theta", f"is {theta:g} and outside of it {outer_theta:g}")
    values["rope_theta"] = theta
    if "truncate" not in rope.fields:
        rope.complain("truncate", "is absent, which means true; only false is implemented")
    rope.expect("truncate", False)
    for field in ("attention_factor", "mscale", "mscale_all_dim"):
        rope.expect(field, None)
    rope.expect("partial_rotary_factor", None, 1, 1.0)
    rope.refuse_the_rest()
    return values


def _read_quantization(quantization: FieldReader | None) -> None:
    if quantization is None:
        return
    quantization.expect("quant_method", "mxfp4", required=True)
    quantization.take("modules_to_not_convert", None)  # the stored dtypes say it
    quantization.take("dequantize", None)  # how transformers is to load, not what is stored
    quantization.refuse_the_rest()


def _layer_types(reader: FieldReader, layers: int | None) -> tuple[str, ...]:
    kinds = reader.take("layer_types", None)
    if layers is not None and layers > MOST_LAYERS:
        reader.complain("num_hidden_layers", f"is {layers}, more than {MOST_LAYERS}")
        return ()
    if kinds is None:
        return ()
    if not isinstance(kinds, list):
        reader.complain("layer_types", f"is {shown(kinds)}, not a list")
        return ()
    for n, kind in enumerate(kinds):
        if kind not in LAYER_TYPES:
            known = " or ".join(LAYER_TYPES)
            reader.complain(f"layer_types[{n}]", f"is {shown(kind)}, not {known}")
    if layers is not None and len(kinds) != layers:
        reader.complain("layer_types", f"has {len(kinds)} entries; num_hidden_layers is {layers}")
    return tuple(kinds)


def _must_agree(reader: FieldReader, field: str, with_field: str, value: int | None) -> None:
    """Take a second spelling of a field already read; it may be absent, not different."""
    if field not in reader.fields:
        return
    second = reader.size(field)
    if None not in (second, value) and second != value:
        reader.complain(field, f"is {second} and {with_field} is {value}; they must agree")
