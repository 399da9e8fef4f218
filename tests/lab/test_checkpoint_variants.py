"""Checkpoints that people have, made with transformers, PEFT and by hand: each one loads with
transformers' logits, converts with a bounded error, or is refused with one sentence.

Every model is random (seed 0), with the sizes of `CONFIG` unless its row changes them. Its logits
are compared over 300 tokens: past the window of 8 and the initial context of 256.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.cli.main import main
from oss_lab.proof.transformers_model import load_folder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0}
YARN |= {"truncate": False, "original_max_position_embeddings": 256, "rope_theta": 150_000.0}
CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 32,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": YARN,
    "tie_word_embeddings": False,
}
IDS = torch.randint(0, 96, (300,), generator=torch.Generator().manual_seed(0))
Build = Callable[[Path], Any]


def build_model(**changes: Any) -> Any:
    """A random model of transformers, in float32 with BF16 values."""
    config = transformers.GptOssConfig(**{**CONFIG, **changes})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.GptOssForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(mean=float("norm" in name), std=0.1)
        parameter.data = parameter.data.bfloat16().float()
    return model


def save(folder: Path, dtype: torch.dtype = torch.bfloat16, published: bool = True, **options: Any):
    """Save a model as transformers does; `model=` fields go to its configuration."""
    model = build_model(**options.pop("config", {}))
    expected = compute_logits(model)
    model.to(dtype).save_pretrained(folder, save_original_format=not published, **options)
    return expected


def compute_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS[None]).logits[0]


def pack(folder: Path, to: str = "huggingface", *options: str) -> Path:
    """Convert to MXFP4 in a new folder."""
    out = folder.parent / f"packed-{to}"
    arguments = ["--to", to, "--out", str(out), "--experts", "mxfp4", *options]
    assert main(["convert", str(folder), *arguments]) == 0
    return out


def published(folder: Path) -> Any:
    return save(folder)


def misnamed_blocks(folder: Path) -> Any:
    return save(folder, published=False)


def in_shards(folder: Path) -> Any:
    return save(folder, max_shard_size="50KB")


def packed(folder: Path) -> Any:
    save(folder.parent / "dense")
    pack(folder.parent / "dense").rename(folder)
    return compute_logits(load_folder(folder, torch.float32))


def packed_in_shards(folder: Path) -> Any:
    save(folder.parent / "dense")
    pack(folder.parent / "dense", "huggingface", "--max-shard-size", "50KB").rename(folder)
    return compute_logits(load_folder(folder, torch.float32))


def packed_original(folder: Path) -> Any:
    save(folder.parent / "dense")
    expected = compute_logits(load_folder(pack(folder.parent / "dense"), torch.float32))
    pack(folder.parent / "dense", "original").rename(folder)
    return expected


def packed_in_original_subfolder(folder: Path) -> Any:
    folder.mkdir()
    return packed_original(folder / "original")


def with_config(**changes: Any) -> Build:
    return lambda folder: save(folder, config=changes)


def old_rope_scaling(folder: Path) -> Any:
    """As transformers 4 wrote it: `rope_theta` outside, and YaRN's factor spelled out."""
    expected = save(folder)

    def rename(fields: dict[str, Any]) -> None:
        rope = fields.pop("rope_parameters")
        fields["rope_theta"] = rope.pop("rope_theta")
        fields["rope_scaling"] = rope

    edit_config(folder, rename)
    return expected


def bookkeeping(folder: Path) -> Any:
    expected = save(folder)
    fields = {"_name_or_path": "x/y", "torch_dtype": "bfloat16", "unsloth_version": "2026.9"}
    edit_config(folder, lambda config: config.update(fields))
    return expected


def trainer_checkpoint(folder: Path) -> Any:
    """The state of transformers' Trainer next to good weights."""
    expected = save(folder)
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin"):
        (folder / name).write_bytes(b"PK")
    (folder / "trainer_state.json").write_text("{}")
    return expected


def hub_snapshot(folder: Path) -> Any:
    """Files that are links to blobs, as in the Hub's cache."""
    expected = save(folder.parent / "blobs")
    folder.mkdir()
    for file in (folder.parent / "blobs").iterdir():
        (folder / file.name).symlink_to(file)
    return expected


def merged_by_peft(folder: Path) -> Any:
    model = adapt(build_model(), target_modules=["q_proj", "o_proj"]).merge_and_unload()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    expected = compute_logits(model)
    model.bfloat16().save_pretrained(folder, save_original_format=False)
    return expected


def merged_here(**targets: Any) -> Build:
    """Our merge of PEFT's adapter; its logits are those of PEFT's merge, rounded to BF16."""

    def build(folder: Path) -> Any:
        base, adapter = folder.parent / "base", folder.parent / "adapter"
        save(base)
        adapted = adapt(build_model(), **targets)
        adapted.save_pretrained(adapter)
        arguments = ["--adapter", str(adapter), "--experts", "bf16", "--to", "huggingface"]
        assert main(["convert", str(base), *arguments, "--out", str(folder)]) == 0
        merged = adapted.merge_and_unload()
        for parameter in merged.parameters():
            parameter.data = parameter.data.bfloat16().float()
        return compute_logits(merged)

    return build


def adapt(model: Any, **targets: Any) -> Any:
    """The model with a random adapter of PEFT."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    settings = peft.LoraConfig(r=2, lora_alpha=4, **targets)
    adapted = peft.get_peft_model(model, settings)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return adapted


LOADS: dict[str, Build] = {
    "transformers, published names": published,
    "transformers, experts misnamed as blocks": misnamed_blocks,
    "transformers, shards with an index": in_shards,
    "transformers 4's rope_scaling": old_rope_scaling,
    "fields for bookkeeping": bookkeeping,
    "Trainer's folder": trainer_checkpoint,
    "links into the Hub's cache": hub_snapshot,
    "MXFP4": packed,
    "MXFP4 in shards": packed_in_shards,
    "MXFP4, original layout": packed_original,
    "MXFP4, in a subfolder": packed_in_original_subfolder,
    "pruned to top 4 of 4": with_config(num_experts_per_tok=4),
    "pruned to one expert per token": with_config(num_experts_per_tok=1),
    "one KV head": with_config(num_key_value_heads=1),
    "as many KV heads as heads": with_config(num_key_value_heads=4),
    "three layers": with_config(num_hidden_layers=3),
    "another window": with_config(sliding_window=13),
    "another epsilon": with_config(rms_norm_eps=1e-3),
    "another clamp": with_config(swiglu_limit=0.5),
    "full attention only": with_config(layer_types=["full_attention"] * 2),
    "a longer vocabulary": with_config(vocab_size=101),
    "merged by PEFT": merged_by_peft,
    "PEFT on attention": merged_here(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
    "PEFT on experts": merged_here(
        target_modules=[],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    ),
    "PEFT on the router, whole lm_head": merged_here(
        target_modules=["q_proj"],
        target_parameters=["mlp.router.weight"],
        modules_to_save=["lm_head"],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", LOADS)
def test_it_loads_with_the_logits_of_transformers(kind, tmp_path) -> None:
    expected = LOADS[kind](tmp_path / "model")
    model = load_model(open_checkpoint(tmp_path / "model"))
    actual = model(IDS[None])[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)
    assert expected.std() > 0.1  # not a degenerate model


CONVERTS: dict[str, Build] = {
    "BF16": published,
    "BF16, misnamed as blocks": misnamed_blocks,
    "F32": lambda folder: save(folder, torch.float32),
    "F16": lambda folder: save(folder, torch.float16),
    "F32 in shards": lambda folder: save(folder, torch.float32, max_shard_size="50KB"),
}


@pytest.mark.parametrize("kind", CONVERTS)
def test_it_converts_with_the_error_of_mxfp4(kind, tmp_path, capsys) -> None:
    """The error is that of transformers' own reading of the result, and is printed."""
    CONVERTS[kind](tmp_path / "model")
    out = pack(tmp_path / "model")
    printed = capsys.readouterr().out
    theirs, exact = load_folder(out, torch.float32), build_model()
    names = ("gate_up_proj", "down_proj")
    for name in names:
        pairs = [
            (getattr(a.mlp.experts, name).data, getattr(b.mlp.experts, name).data)
            for a, b in zip(theirs.model.layers, exact.model.layers, strict=True)
        ]
        off = sum(float((a - b).square().sum()) for a, b in pairs)
        error = (off / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5
        assert 0.08 < error < 0.16
        assert f"{name}: relative RMS error {100 * error:.3f}%" in printed
    actual = load_model(open_checkpoint(out))(IDS[None])[0]
    torch.testing.assert_close(actual, compute_logits(theirs), rtol=0, atol=2e-4)


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads((folder / "config.json").read_text())
    edit(fields)
    (folder / "config.json").write_text(json.dumps(fields))


def set_fields(**changes: Any) -> Build:
    return lambda folder: edit_config(folder, lambda fields: fields.update(changes))


def edit_tensors(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Build:
    """Edit the only weights file."""

    def build(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return build


def split_experts(tensors: dict[str, torch.Tensor]) -> None:
    """One tensor per expert, as unsloth names them."""
    stacked = tensors.pop("model.layers.0.mlp.experts.down_proj")
    for n, matrix in enumerate(stacked):
        tensors[f"model.layers.0.mlp.experts.down_projs.{n}.weight"] = matrix.T


def prune_one_layer(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "layers.1.mlp" in name]:
        tensors[name] = tensors[name][:3]


def only_adapter(folder: Path) -> None:
    shutil.rmtree(folder)
    adapt(build_model(), target_modules=["q_proj"]).save_pretrained(folder)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\3\4")


EXPERTS = "model.layers.1.mlp.experts"
REFUSED: dict[str, tuple[Build, str]] = {
    "F32 without conversion": (
        lambda folder: shutil.rmtree(folder) or save(folder, torch.float32),
        "`oss-lab convert` rounds it",
    ),
    "F16 without conversion": (
        lambda folder: shutil.rmtree(folder) or save(folder, torch.float16),
        "`oss-lab convert` rounds it",
    ),
    "one tensor per expert": (edit_tensors(split_experts), "down_projs"),
    "another count of experts in a layer": (edit_tensors(prune_one_layer), "expert"),
    "a bias is missing": (
        edit_tensors(lambda tensors: tensors.pop(f"{EXPERTS}.down_proj_bias")),
        "down_proj_bias",
    ),
    "an extra tensor": (
        edit_tensors(lambda tensors: tensors.update(extra=torch.zeros(1))),
        "extra",
    ),
    "sinks are missing": (
        edit_tensors(lambda tensors: tensors.pop("model.layers.0.self_attn.sinks")),
        "sinks",
    ),
    "tied embeddings": (
        edit_tensors(lambda tensors: tensors.pop("lm_head.weight")),
        "lm_head",
    ),
    "a cut file": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-100]
        ),
        "model.safetensors",
    ),
    "bitsandbytes": (
        set_fields(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "bitsandbytes",
    ),
    "no attention bias": (set_fields(attention_bias=False), "attention_bias"),
    "another attention factor": (
        set_fields(rope_parameters={**YARN, "attention_factor": 1.0}),
        "attention_factor",
    ),
    "another rope": (
        set_fields(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
        "rope",
    ),
    "an unknown field": (set_fields(use_qk_norm=True), "use_qk_norm"),
    "another architecture": (
        set_fields(model_type="mixtral", architectures=["MixtralForCausalLM"]),
        "ixtral",
    ),
    "an adapter": (only_adapter, "--adapter"),
    "a pickle": (only_pickle, "pickle"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_one_sentence(kind, tmp_path, capsys) -> None:
    folder = tmp_path / "model"
    save(folder)
    edit, words = REFUSED[kind]
    edit(folder)
    (tmp_path / "ids.json").write_text("[1]")
    logits = ["logits", "--tokens", str(tmp_path / "ids.json"), "--out", str(tmp_path / "out")]
    for command in (["inspect"], logits):
        capsys.readouterr()
        assert main([*command, str(folder)]) != 0
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
