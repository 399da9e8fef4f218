"""A checkpoint as a GGUF file: every number, the forward pass over them, the vocabulary."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from oss_kernels import mxfp4

from oss_lab.checkpoint.gguf.blocks import to_gguf_blocks
from oss_lab.checkpoint.gguf.limits import describe_frequencies, rounded_frequencies
from oss_lab.checkpoint.gguf.tensors import NAMES
from oss_lab.checkpoint.gguf.write import write_gguf
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_20B, ModelConfig
from oss_lab.errors import CheckpointError
from oss_lab.model.rope import inverse_frequencies
from oss_lab.proof.numpy_forward import numpy_forward
from oss_lab.tokenizer import GPT2_CHARACTERS

gguf = pytest.importorskip("gguf", reason="gguf is not installed (extra `gguf`)")
from gguf.quants import dequantize  # noqa: E402

PLAIN = {ord(character): byte for byte, character in GPT2_CHARACTERS.items()}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return gguf.GGUFReader(
        write_gguf(open_checkpoint("nano"), tmp_path_factory.mktemp("gguf") / "nano.gguf")
    )


def read_numbers(reader) -> dict[str, np.ndarray]:
    """The float64 tensors, by the gguf package alone."""
    return {
        each.name: dequantize(each.data, each.tensor_type).astype(np.float64).reshape(
            [*reversed(each.shape.tolist())]
        )
        for each in reader.tensors
    }  # fmt: skip


def originals(
    config: ModelConfig, numbers: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of the original layout, with experts as numbers."""
    for key, names in NAMES.items():
        layers = [("", "")]
        if key.startswith(("attn", "mlp")):
            layers = [(f"block.{n}.", f"blk.{n}.") for n in range(config.num_hidden_layers)]
        for ours, theirs in layers:
            parts = [numbers[theirs + name] for name in names]
            if "mlp1" in key:  # gate and up alternate
                yield (
                    ours + key,
                    np.stack(parts, axis=2).reshape(len(parts[0]), -1, *parts[0].shape[2:]),
                )
            else:
                yield ours + key, np.concatenate(parts)


def read_config(reader) -> ModelConfig:
    """The configuration that the metadata state."""
    value = {name: field.contents() for name, field in reader.fields.items()}
    assert value["general.architecture"] == "gpt-oss"
    read = {name.removeprefix("gpt-oss."): v for name, v in value.items()}
    return ModelConfig(
        num_hidden_layers=read["block_count"],
        num_experts=read["expert_count"],
        experts_per_token=read["expert_used_count"],
        vocab_size=len(value["tokenizer.ggml.tokens"]),
        hidden_size=read["embedding_length"],
        intermediate_size=read["expert_feed_forward_length"],
        head_dim=read["attention.key_length"],
        num_attention_heads=read["attention.head_count"],
        num_key_value_heads=read["attention.head_count_kv"],
        sliding_window=read["attention.sliding_window"],
        initial_context_length=read["rope.scaling.original_context_length"],
        rope_theta=read["rope.freq_base"],
        rope_scaling_factor=read["rope.scaling.factor"],
        rms_norm_eps=float(f"{read['attention.layer_norm_rms_epsilon']:.6g}"),  # a float32
    )


def test_its_tensors_and_fields_give_the_logits_of_the_checkpoint(reader, nano) -> None:
    config = read_config(reader)
    assert config == nano.config
    weights = dict(originals(config, read_numbers(reader)))
    ids = np.random.default_rng(0).integers(0, 600, 140)  # longer than the window of 32
    logits = numpy_forward(config, weights, ids)["out.logits", None]
    assert np.abs(logits - nano.logits(ids.tolist()).numpy()).max() < 1e-3


def test_names_are_those_of_the_gguf_package(reader) -> None:
    kinds = gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT_OSS]
    known = {gguf.TENSOR_NAMES[kind].format(bid=0) for kind in kinds}
    ours = {name.rpartition(".")[0] for name in sum(NAMES.values(), ())}
    assert ours == {name.removeprefix("blk.0.") for name in known}
    layers = 4 * sum(len(names) for key, names in NAMES.items() if key.startswith(("attn", "mlp")))
    assert len(reader.tensors) == layers + 3


@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_keep_every_number(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    blocks = torch.randint(0, 256, (rows, 5, 2, 16), generator=generator).to(torch.uint8)
    scales = torch.randint(100, 140, (rows, 5, 2), generator=generator).to(torch.uint8)
    found = dequantize(to_gguf_blocks(blocks, scales).numpy(), gguf.GGMLQuantizationType.MXFP4)
    assert (found == mxfp4.dequantize(blocks, scales, torch.float32).numpy()).all()


def test_every_token_and_merge_is_there(reader, nano) -> None:
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    for id in range(nano.config.vocab_size):
        if types[id] == gguf.TokenType.UNUSED:
            assert not nano.usable[id]
        elif types[id] == gguf.TokenType.CONTROL:
            assert nano.tokenizer.encode(tokens[id], allowed_special="all") == [id]
        else:
            plain = tokens[id].translate(PLAIN)
            assert plain.encode("latin-1") == nano.tokenizer.decode_single_token_bytes(id)
    pairs = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]
    assert all(first + second in tokens for first, second in pairs)
    assert tokens[fields["tokenizer.ggml.eos_token_id"]] == "<|return|>"
    assert "Reasoning: " in fields["tokenizer.chat_template"]


@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_both_layouts_give_the_same_file(layout, tmp_path, reader) -> None:
    main(["convert", "nano", "--to", layout, "--out", str(tmp_path / "copy")])
    again = gguf.GGUFReader(write_gguf(open_checkpoint(tmp_path / "copy"), tmp_path / "a.gguf"))
    for ours, theirs in zip(again.tensors, reader.tensors, strict=True):
        assert ours.name == theirs.name
        assert (ours.data == theirs.data).all()


def test_dense_experts_stay_dense(tmp_path, reader) -> None:
    main(
        [
            "convert",
            "nano",
            "--to",
            "huggingface",
            "--experts",
            "bf16",
            "--out",
            str(tmp_path / "d"),
        ]
    )
    dense = gguf.GGUFReader(write_gguf(open_checkpoint(tmp_path / "d"), tmp_path / "d.gguf"))
    assert {t.tensor_type.name for t in dense.tensors} == {"F32", "BF16"}
    packed = read_numbers(reader)
    assert all((found == packed[name]).all() for name, found in read_numbers(dense).items())


def test_the_rounded_ramp_is_stated() -> None:
    exact, rounded = inverse_frequencies(GPT_OSS_20B), rounded_frequencies(GPT_OSS_20B)
    differ = ~torch.isclose(exact, rounded, rtol=1e-6)
    assert (int(differ.sum()), len(exact)) == (9, 32)
    assert f"{(rounded / exact - 1).abs().max():.0%}" == "76%"
    assert "9 of 32 RoPE frequencies differ" in describe_frequencies(GPT_OSS_20B)
    low, high = 8, 18  # as 20b's limits, 8.09 and 17.40, round
    assert math.isclose(rounded[low], 150000 ** (-2 * low / 64), rel_tol=1e-6)
    assert math.isclose(rounded[high], 150000 ** (-2 * high / 64) / 32, rel_tol=1e-6)


def test_what_llama_cpp_would_compute_differently_is_refused(write_tiny, tiny_config, tmp_path):
    for changes, named in (
        ({"swiglu_limit": 5.0}, "swiglu_limit 7.0"),
        ({"layer_types": ("full_attention", "full_attention")}, "layer_types an alternation"),
        ({"rope_ntk_beta": 20.0}, "rope_ntk_beta 32.0"),
    ):
        folder = write_tiny(name=named.split()[0], config=replace(tiny_config, **changes))
        with pytest.raises(CheckpointError, match=named):
            write_gguf(open_checkpoint(folder), tmp_path / "x.gguf")


def test_the_command(tmp_path, capsys) -> None:
    file = tmp_path / "nano.gguf"
    command = ["convert", "nano", "--to", "gguf", "--out"]
    assert main([*command, str(file)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {file}" in printed
    assert "2 of 8 RoPE frequencies differ from this model's, one by 51%" in printed
    assert main([*command, str(file)]) == 1
    assert "already exists; replace it with --overwrite" in capsys.readouterr().err
    assert main([*command, str(file), "--overwrite"]) == 0
    assert main([*command, str(tmp_path / "nano")]) == 1
    assert "does not end in .gguf" in capsys.readouterr().err
    assert main([*command, str(file), "--experts", "bf16"]) == 2
    assert "--experts has no effect with --to gguf" in capsys.readouterr().err
