"""Both dialects of config.json: which fields are used, which are refused, and under which name."""

import copy
import json
import re
from dataclasses import fields, replace

import pytest

from oss_lab.checkpoint.dialects import (
    examine_config,
    huggingface_fields,
    original_fields,
)
from oss_lab.config import GPT_OSS_20B, GPT_OSS_120B, GPT_OSS_NANO, MODELS, ModelConfig

ORIGINAL_20B = json.loads("""{"num_hidden_layers": 24, "num_experts": 32, "experts_per_token": 4,
    "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "swiglu_limit": 7.0,
    "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128,
    "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1, "rope_ntk_beta": 32}""")
HUGGINGFACE_20B = json.loads("""{"architectures": ["GptOssForCausalLM"], "attention_bias": true,
    "attention_dropout": 0.0, "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
    "initializer_range": 0.02, "intermediate_size": 2880, "max_position_embeddings": 131072,
    "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
    "output_router_logits": false, "pad_token_id": 199999,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert":
        ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
    "rms_norm_eps": 1e-05, "rope_theta": 150000, "rope_scaling": {"beta_fast": 32.0,
        "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "rope_type": "yarn", "truncate": false},
    "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": false, "transformers_version": "4.55.0.dev0", "use_cache": true,
    "vocab_size": 201088}""") | {"layer_types": ["sliding_attention", "full_attention"] * 12}

# No field has its published value here, so a dropped field is noticed.
UNUSUAL = ModelConfig(
    num_hidden_layers=3,
    num_experts=6,
    experts_per_token=5,
    vocab_size=77,
    hidden_size=96,
    intermediate_size=160,
    swiglu_limit=5.5,
    head_dim=10,
    num_attention_heads=9,
    num_key_value_heads=3,
    sliding_window=7,
    initial_context_length=300,
    rope_theta=9999.5,
    rope_scaling_factor=3.5,
    rope_ntk_alpha=1.25,
    rope_ntk_beta=17.0,
    rms_norm_eps=3e-4,
    swiglu_alpha=1.5,
    layer_types=("full_attention", "full_attention", "sliding_attention"),
)


def change_field(source, path, value):
    """A deep copy of a config with one field set (dots for nested fields); `...` removes it."""
    copied = copy.deepcopy(source)
    *outer, name = path.split(".")
    inner = copied
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return copied


def parse(fields):
    config, problems = examine_config(fields)
    assert problems == []
    return config


def first_problem(fields):
    """The sentence for the first problem."""
    config, problems = examine_config(fields)
    assert config is None
    return problems[0].sentence


def test_published_files():
    assert parse(ORIGINAL_20B) == GPT_OSS_20B
    assert parse(HUGGINGFACE_20B) == GPT_OSS_20B
    assert parse(change_field(HUGGINGFACE_20B, "layer_types", ...)) == GPT_OSS_20B


def test_published_original_file_is_what_is_written():
    assert original_fields(GPT_OSS_20B) == ORIGINAL_20B


def test_published_huggingface_fields_are_written_with_their_values():
    written = huggingface_fields(GPT_OSS_20B)
    left_out = {"output_router_logits", "transformers_version"}
    assert {
        n: v for n, v in HUGGINGFACE_20B.items() if n not in left_out
    }.items() <= written.items()
    assert written.keys() - HUGGINGFACE_20B.keys() == {"dtype", "swiglu_alpha"}


@pytest.mark.parametrize("config", [*MODELS.values(), UNUSUAL])
@pytest.mark.parametrize("spell", [original_fields, huggingface_fields])
def test_every_field_survives_both_dialects(config, spell):
    for field in fields(ModelConfig):
        assert getattr(UNUSUAL, field.name) != getattr(GPT_OSS_120B, field.name)
    assert parse(json.loads(json.dumps(spell(config)))) == config


def test_what_transformers_writes_can_be_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GptOssConfig(
        num_hidden_layers=2,
        num_local_experts=6,
        num_experts_per_tok=3,
        sliding_window=9,
        rms_norm_eps=2e-5,
        swiglu_alpha=1.6,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 5000.0,
            "factor": 8.0,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
            "truncate": False,
            "original_max_position_embeddings": 1024,
        },
    )
    theirs.save_pretrained(tmp_path)
    assert parse(json.loads((tmp_path / "config.json").read_text())) == replace(
        GPT_OSS_120B,
        num_hidden_layers=2,
        num_experts=6,
        experts_per_token=3,
        sliding_window=9,
        rms_norm_eps=2e-5,
        swiglu_alpha=1.6,
        layer_types=("full_attention", "sliding_attention"),
        rope_theta=5000.0,
        rope_scaling_factor=8.0,
        rope_ntk_beta=20.0,
        rope_ntk_alpha=2.0,
        initial_context_length=1024,
    )


@pytest.mark.parametrize("config", [GPT_OSS_20B, GPT_OSS_NANO, UNUSUAL])
def test_transformers_reads_what_we_write(tmp_path, config):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_fields(config)))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "GptOssConfig"
    rope = theirs.rope_parameters
    assert rope["rope_type"] == "yarn"
    assert rope["truncate"] is False
    assert config == ModelConfig(
        num_hidden_layers=theirs.num_hidden_layers,
        num_experts=theirs.num_local_experts,
        experts_per_token=theirs.num_experts_per_tok,
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.hidden_size,
        intermediate_size=theirs.intermediate_size,
        swiglu_limit=theirs.swiglu_limit,
        head_dim=theirs.head_dim,
        num_attention_heads=theirs.num_attention_heads,
        num_key_value_heads=theirs.num_key_value_heads,
        sliding_window=theirs.sliding_window,
        initial_context_length=rope["original_max_position_embeddings"],
        rope_theta=rope["rope_theta"],
        rope_scaling_factor=rope["factor"],
        rope_ntk_alpha=rope["beta_slow"],
        rope_ntk_beta=rope["beta_fast"],
        rms_norm_eps=theirs.rms_norm_eps,
        swiglu_alpha=theirs.swiglu_alpha,
        layer_types=tuple(theirs.layer_types),
    )


REFUSED_HUGGINGFACE = [
    ("rope_scaling.rope_type", "llama3"),
    ("rope_scaling.rope_type", "default"),
    ("rope_scaling.rope_type", None),
    ("rope_scaling.rope_type", ...),
    ("rope_scaling.type", "linear"),
    ("rope_scaling.truncate", True),
    ("rope_scaling.truncate", ...),
    ("rope_scaling.truncate", None),
    ("rope_scaling.attention_factor", 1.2),
    ("rope_scaling.mscale", 1.0),
    ("rope_scaling.mscale_all_dim", 1.0),
    ("rope_scaling.partial_rotary_factor", 0.5),
    ("rope_scaling.long_factor", [1.0]),
    ("rope_scaling.factor", ...),
    ("rope_scaling.factor", 0.5),
    ("rope_scaling.beta_fast", 0.5),
    ("rope_scaling.original_max_position_embeddings", ...),
    ("rope_scaling", ...),
    ("rope_scaling", None),
    ("rope_theta", ...),
    ("rope_theta", 1.0),
    ("rope_theta", float("nan")),
    ("initial_context_length", 8192),
    ("experts_per_token", 2),
    ("num_experts_per_tok", ...),
    ("num_experts", 16),
    ("num_local_experts", 0),
    ("hidden_act", "gelu"),
    ("attention_bias", False),
    ("attention_bias", 1),
    ("tie_word_embeddings", True),
    ("final_logit_softcapping", 30.0),
    ("attn_logit_softcapping", 50.0),
    ("partial_rotary_factor", 0.5),
    ("layer_types", ["sliding_attention"] * 23),
    ("layer_types", "sliding_attention"),
    ("sliding_window", None),
    ("sliding_window", True),
    ("rms_norm_eps", ...),
    ("rms_norm_eps", "1e-5"),
    ("rms_norm_eps", -1e-5),
    ("swiglu_limit", float("inf")),
    ("swiglu_alpha", None),
    ("hidden_size", 2881),
    ("hidden_size", 2880.0),
    ("intermediate_size", 2896),
    ("head_dim", 63),
    ("num_hidden_layers", 10**9),
    ("vocab_size", -1),
    ("model_type", "llama"),
    ("model_type", None),
    ("model_type", ...),
    ("architectures", ["GptOssForSequenceClassification"]),
    ("quantization_config.quant_method", "gptq"),
    ("quantization_config.quant_method", None),
    ("quantization_config.bits", 4),
    ("quantization_config", "mxfp4"),
    ("use_qk_norm", False),
    ("mlp_bias", True),
]


@pytest.mark.parametrize(("path", "value"), REFUSED_HUGGINGFACE)
def test_huggingface_field_is_refused_by_name(path, value):
    config, problems = examine_config(change_field(HUGGINGFACE_20B, path, value))
    assert config is None
    names = {name for name, _ in problems}
    assert path in names
    assert all("\n" not in sentence for _, sentence in problems)


CONTRADICTIONS = [
    ({"num_key_value_heads": 7}, r"num_attention_heads is 64, .*num_key_value_heads, 7"),
    ({"num_local_experts": 3}, r"num_experts_per_tok is 4, more than num_local_experts, 3"),
    ({"num_hidden_layers": 23}, r"layer_types has 24 entries; num_hidden_layers is 23"),
    ({"rope_scaling.beta_slow": 32}, r"rope_scaling\.beta_fast is 32, .*rope_scaling\.beta_slow"),
    ({"experts_per_token": 2}, r"experts_per_token is 2, but num_experts_per_tok is 4"),
    (
        {"initial_context_length": 6, "rope_scaling.original_max_position_embeddings": 6},
        r"rope_scaling\.original_max_position_embeddings is 6, too short",
    ),
    ({"rope_scaling.factor": 1e9}, r"rope_scaling\.factor is 1e\+09, too much"),
]


@pytest.mark.parametrize(("changes", "sentence"), CONTRADICTIONS)
def test_contradictions_name_both_fields_as_written(changes, sentence):
    contradictory = HUGGINGFACE_20B
    for path, value in changes.items():
        contradictory = change_field(contradictory, path, value)
    assert re.search(sentence, first_problem(contradictory))


def test_layer_types_are_refused_one_by_one():
    kinds = ["sliding_attention", "chunked_attention"] * 12
    assert re.search(
        r'layer_types\[1\] is "chunked_attention"',
        first_problem(change_field(HUGGINGFACE_20B, "layer_types", kinds)),
    )


@pytest.mark.parametrize("name", ORIGINAL_20B)
def test_original_field_is_refused_by_name(name):
    for value in (..., None, True, "7", -1, 0, [], float("nan"), 10**400):
        assert re.search(rf"^{name} is ", first_problem(change_field(ORIGINAL_20B, name, value)))


def test_unknown_original_field_is_refused():
    assert re.search(
        "rope_truncate is not understood", first_problem(ORIGINAL_20B | {"rope_truncate": True})
    )


def test_all_problems_are_listed_in_a_fixed_order():
    bad = ORIGINAL_20B | {"zebra": 1, "ant": 2, "head_dim": 1.5, "num_experts": None}
    names = [name for name, _ in examine_config(bad)[1]]
    assert names == ["num_experts", "head_dim", "ant", "zebra"]


def test_old_name_of_the_rope_type():
    older = change_field(HUGGINGFACE_20B, "rope_scaling.rope_type", ...)
    assert parse(change_field(older, "rope_scaling.type", "yarn")) == GPT_OSS_20B


YARN_FACTOR = 1.3465735902799727  # 0.1 ln 32 + 1, in architecture.md 1.5


@pytest.mark.parametrize("factor", [YARN_FACTOR, 1.3465735912322998, None])
def test_c8_the_attention_factor_of_yarn_itself_is_accepted(factor):
    """In double and in single precision; null means the same."""
    fields = change_field(HUGGINGFACE_20B, "rope_scaling.attention_factor", factor)
    assert parse(fields) == GPT_OSS_20B


@pytest.mark.parametrize("factor", [1.0, 1.34657, 1.4, "1.3465735902799727", True])
def test_c8_another_attention_factor_names_the_field(factor):
    fields = change_field(HUGGINGFACE_20B, "rope_scaling.attention_factor", factor)
    sentence = f"rope_scaling.attention_factor is {json.dumps(factor)}; only YaRN's own, "
    assert first_problem(fields) == f"{sentence}{YARN_FACTOR} or null, is implemented"


HARMLESS = {
    "_name_or_path": "/home/someone/run-3",
    "_attn_implementation_autoset": True,
    "bos_token_id": 199998,
    "dtype": "float16",
    "eos_token_id": [200002, 199999],
    "initializer_range": 0.01,
    "output_router_logits": True,
    "pad_token_id": 200017,
    "router_aux_loss_coef": 0.001,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "torch_dtype": "bfloat16",
    "transformers_version": "5.23.0",
    "unsloth_version": "2025.9.1",
    "use_cache": False,
}


@pytest.mark.parametrize("field", HARMLESS)
def test_c8_fields_that_do_not_change_the_logits_are_accepted(field):
    assert parse(HUGGINGFACE_20B | {field: HARMLESS[field]}) == GPT_OSS_20B


@pytest.mark.parametrize(
    "quantization",
    [
        None,
        ...,
        {"quant_method": "mxfp4", "modules_to_not_convert": None},
        {"quant_method": "mxfp4", "dequantize": True},
    ],
)
def test_c8_quantization_of_a_dequantized_model_is_accepted(quantization):
    fields = change_field(HUGGINGFACE_20B, "quantization_config", quantization)
    assert parse(fields) == GPT_OSS_20B


def test_c8_rope_scaling_repeated_as_rope_parameters_is_accepted():
    rope = HUGGINGFACE_20B["rope_scaling"]
    assert parse(HUGGINGFACE_20B | {"rope_parameters": rope}) == GPT_OSS_20B
    assert parse(HUGGINGFACE_20B | {"rope_parameters": rope, "rope_scaling": None}) == GPT_OSS_20B


def test_c8_the_config_of_transformers_itself_is_accepted():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    written = transformers.GptOssConfig(num_hidden_layers=24, num_local_experts=32)
    written.architectures = ["GptOssForCausalLM"]
    config = parse(json.loads(written.to_json_string(use_diff=False)))
    assert config == GPT_OSS_20B


def test_newer_name_of_rope_parameters():
    newer = copy.deepcopy(HUGGINGFACE_20B)
    newer["rope_parameters"] = newer.pop("rope_scaling") | {"rope_theta": newer.pop("rope_theta")}
    assert parse(newer) == GPT_OSS_20B
    assert re.search(
        r"rope_parameters\.truncate is absent",
        first_problem(change_field(newer, "rope_parameters.truncate", ...)),
    )
    assert re.search(
        "both present",
        first_problem(newer | {"rope_scaling": HUGGINGFACE_20B["rope_scaling"] | {"factor": 2.0}}),
    )
    assert re.search(
        "150000, but at the top level 10000", first_problem(newer | {"rope_theta": 10000})
    )
    assert re.search(
        r"rope_parameters\.beta_fast is 0\.5",
        first_problem(change_field(newer, "rope_parameters.beta_fast", 0.5)),
    )


@pytest.mark.parametrize("field", ["dtype", "torch_dtype", "_name_or_path", "use_cache"])
def test_bookkeeping_fields_are_ignored(field):
    assert parse(HUGGINGFACE_20B | {field: "anything"}) == GPT_OSS_20B


def test_names_from_the_file_stay_on_one_line():
    _, problems = examine_config(ORIGINAL_20B | {"a\nb\x1b[31m" + "c" * 1000: "d\n" * 1000})
    assert problems[0].sentence.isprintable()
    assert len(problems[0].sentence) < 400
