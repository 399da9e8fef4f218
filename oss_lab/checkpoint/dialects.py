"""The two dialects of config.json, and what each field means for the arithmetic.

Each field is either accepted at every value that the model implements, or refused by name. A field
that is not understood may change the arithmetic, so only the bookkeeping fields listed here are
ignored. The original dialect is flat. Hugging Face's puts RoPE under `rope_scaling`, or under
`rope_parameters` in transformers 5, and has different defaults: an absent `truncate` means true.

The original dialect has no field for layer types, norm epsilon and sigmoid slope. Values that
differ from the published ones are written under our field names. OpenAI's implementation then
refuses to load the file, instead of ignoring these values. Sources: gpt-oss v0.0.9, transformers
5.23.0.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oss_lab.checkpoint.fields import FieldProblem, FieldReader, shorten_json
from oss_lab.checkpoint.layouts import ExpertStorage, Layout
from oss_lab.checkpoint.rope_fields import ROPE, read_rope
from oss_lab.config import LAYER_TYPES, ModelConfig, find_contradictions

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
# Not in the published original file: omitted if they have the published value.
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
"""ModelConfig fields with another name there; `rope_scaling` may also be `rope_parameters`."""

SHAPING = {*SIZES, "layer_types"} - {"sliding_window", "initial_context_length"}
SHAPING |= {HUGGINGFACE_NAMES.get(name, name) for name in SHAPING}
"""Fields, in either dialect, that determine the tensors or are compared with one that does."""

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
"""Fields that would change the arithmetic at any other value. The first value is the default."""

HUGGINGFACE_BOOKKEEPING = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_experts_implementation",
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
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_return_dict",
}
"""Fields that do not affect the logits of a forward pass: training, generation, provenance."""

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
    """The dialect of a config.json: only Hugging Face's has a model_type or architectures."""
    named = {"model_type", "architectures", "num_local_experts"} & fields.keys()
    return "huggingface" if named else "original"


def examine_config(fields: Mapping[str, Any]) -> tuple[ModelConfig | None, list[FieldProblem]]:
    """Read either dialect: returns the configuration, or None and all problems in order.

    The order: ModelConfig's fields, then fixed fields, then fields not understood (alphabetically),
    then contradictions between fields. Those are only checked if shapes and RoPE can be read.
    """
    values, reader = _read(fields)
    shaping = SHAPING & {problem.field for problem in reader.problems}
    if shaping or None in (values[name] for name in ROPE):
        return None, reader.problems
    config = _with_defaults(values)
    names = HUGGINGFACE_NAMES if dialect_of(fields) == "huggingface" else {}
    if "rope_parameters" in fields:
        names = {n: their.replace("rope_scaling", "rope_parameters") for n, their in names.items()}
    for field, what in find_contradictions(config):
        what = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), what)
        reader.add_problem(names.get(field, field), what)
    return (None, reader.problems) if reader.problems else (config, [])


def read_shapes_config(fields: Mapping[str, Any]) -> ModelConfig | None:
    """A configuration with the tensor shapes of this one, whatever else is wrong with it.

    None if a field of SHAPING is wrong. Other fields that cannot be used get their default.
    """
    config, problems = examine_config(fields)
    if config is None and not SHAPING & {problem.field for problem in problems}:
        return _with_defaults(_read(fields)[0])
    return config


def _with_defaults(values: dict[str, Any]) -> ModelConfig:
    return ModelConfig(**{name: value for name, value in values.items() if value is not None})


def original_fields(config: ModelConfig) -> dict[str, Any]:
    """Write `config` in the original dialect, which has sixteen published fields."""
    published = asdict(ModelConfig(num_hidden_layers=config.num_hidden_layers))
    return {
        name: value
        for name, value in asdict(config).items()
        if name not in UNPUBLISHED or value != published[name]
    }


def huggingface_fields(config: ModelConfig, experts: ExpertStorage = "mxfp4") -> dict[str, Any]:
    """Write `config` as in the published Hugging Face file; transformers 4 and 5 read it."""
    quantization = {"quantization_config": MXFP4_QUANTIZATION} if experts == "mxfp4" else {}
    return (
        {
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
        }
        | quantization
        | _build_special_token_ids(config)
    )


def _build_special_token_ids(config: ModelConfig) -> dict[str, int]:
    published = config.vocab_size == PUBLISHED_DEFAULTS.vocab_size  # then it is o200k_harmony
    return {"eos_token_id": 200002, "pad_token_id": 199999} if published else {}


def _read(fields: Mapping[str, Any]) -> tuple[dict[str, Any], FieldReader]:
    reader = FieldReader(dict(fields), [])
    huggingface = dialect_of(fields) == "huggingface"
    values = _read_huggingface(reader) if huggingface else _read_original(reader)
    reader.refuse_the_rest()
    return values, reader


def _read_original(reader: FieldReader) -> dict[str, Any]:
    values: dict[str, Any] = {name: reader.take_size(name) for name in SIZES}
    values["swiglu_limit"] = reader.take_number("swiglu_limit")
    values["rope_theta"] = reader.take_number("rope_theta")
    values["rope_scaling_factor"] = reader.take_number("rope_scaling_factor", least=1.0)
    values["rope_ntk_alpha"] = reader.take_number("rope_ntk_alpha")
    values["rope_ntk_beta"] = reader.take_number("rope_ntk_beta")
    values["rms_norm_eps"] = reader.take_number("rms_norm_eps", PUBLISHED_DEFAULTS.rms_norm_eps)
    values["swiglu_alpha"] = reader.take_number("swiglu_alpha", PUBLISHED_DEFAULTS.swiglu_alpha)
    values["layer_types"] = _read_layer_types(reader, values["num_hidden_layers"])
    return values


def _read_huggingface(reader: FieldReader) -> dict[str, Any]:
    reader.expect("model_type", "gpt_oss", required=True)
    values: dict[str, Any] = {
        name: reader.take_size(HUGGINGFACE_NAMES.get(name, name))
        for name in SIZES
        if name != "initial_context_length"
    }
    values["swiglu_limit"] = reader.take_number("swiglu_limit", PUBLISHED_DEFAULTS.swiglu_limit)
    values["swiglu_alpha"] = reader.take_number("swiglu_alpha", PUBLISHED_DEFAULTS.swiglu_alpha)
    values["rms_norm_eps"] = reader.take_number("rms_norm_eps")
    values["layer_types"] = _read_layer_types(reader, values["num_hidden_layers"])
    values |= read_rope(reader)
    _check_agreement(
        reader, "experts_per_token", "num_experts_per_tok", values["experts_per_token"]
    )
    _check_agreement(reader, "num_experts", "num_local_experts", values["num_experts"])
    original = "original_max_position_embeddings"
    _check_agreement(reader, "initial_context_length", original, values["initial_context_length"])
    for field, allowed in HUGGINGFACE_FIXED.items():
        reader.expect(field, *allowed)
    if reader.fields.get("quantization_config", {}) is None:
        del reader.fields["quantization_config"]
    if "quantization_config" in reader.fields:
        _read_quantization(reader.take_object("quantization_config"))
    for field in HUGGINGFACE_BOOKKEEPING:
        reader.fields.pop(field, None)
    return values


def _read_quantization(quantization: FieldReader | None) -> None:
    if quantization is None:
        return
    quantization.expect("quant_method", "mxfp4", required=True)
    quantization.take("modules_to_not_convert", None)  # the stored dtypes show it
    quantization.take("dequantize", None)  # how transformers loads it, not how it is stored
    quantization.refuse_the_rest()


def _read_layer_types(reader: FieldReader, layers: int | None) -> tuple[str, ...]:
    kinds = reader.take("layer_types", None)
    if layers is not None and layers > MOST_LAYERS:
        reader.add_problem("num_hidden_layers", f"is {layers}; at most {MOST_LAYERS} is supported")
        return ()
    if kinds is None:
        return ()
    if not isinstance(kinds, list):
        reader.add_problem("layer_types", f"is {shorten_json(kinds)}, not a list")
        return ()
    for n, kind in enumerate(kinds):
        if kind not in LAYER_TYPES:
            known = " or ".join(LAYER_TYPES)
            reader.add_problem(f"layer_types[{n}]", f"is {shorten_json(kind)}, not {known}")
    if layers is not None and len(kinds) != layers:
        reader.add_problem(
            "layer_types", f"has {len(kinds)} entries; num_hidden_layers is {layers}"
        )
    return tuple(kinds)


def _check_agreement(reader: FieldReader, field: str, with_field: str, value: int | None) -> None:
    """Take a second name of a field already read; it may be absent, but not different."""
    if field not in reader.fields:
        return
    second = reader.take_size(field)
    if None not in (second, value) and second != value:
        reader.add_problem(field, f"is {second}, but {with_field} is {value}; they must agree")
