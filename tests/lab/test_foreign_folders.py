"""Folders and files that are not a gpt-oss checkpoint: each gets one sentence that names what it is
and the next command, in `inspect`, `load` and `generate` (cases C3 and C6)."""

import json
import shutil
import zipfile

import pytest
import torch

import oss_lab
from oss_lab.checkpoint.atomic import write_tensors
from oss_lab.checkpoint.examine import examine
from oss_lab.checkpoint.read import DefectiveCheckpointError, open_checkpoint
from oss_lab.cli.main import main
from oss_lab.errors import LabError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4792272488\n"
)
HTML = "<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>\n"
PICKLE = b"\x80\x02}q\x00."
PUBLISHED = "oss-lab chat 20b --download"


def refuse(path, capsys) -> str:
    """The sentence that inspect, load and generate give for `path`: one line, the same in all."""
    sentences = []
    for command in (["inspect", str(path)], ["generate", "hi", "--model", str(path)]):
        assert main(command) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.count("\n") == 1
        sentences.append(output.err.removeprefix("oss-lab: ").rstrip("\n"))
    with pytest.raises(LabError) as refused:
        oss_lab.load(path)
    sentences.append(str(refused.value))
    assert len({sentence.split(" (and ")[0] for sentence in sentences}) == 1, sentences
    return sentences[0]


def write(folder, files):
    """Write files by relative name: text, bytes, or an object as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, dict):
            contents = json.dumps(contents)
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return folder


def config(model_type, architecture, **fields):
    return {"model_type": model_type, "architectures": [architecture], **fields}


def quantized(method, **fields):
    return config("gpt_oss", "GptOssForCausalLM", quantization_config={"quant_method": method})


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "openai/gpt-oss-20b"}
WEIGHTS = {"model.safetensors": b""}
LLAMA = config("llama", "LlamaForCausalLM")
MODEL = config("gpt_oss", "GptOssForCausalLM")
FOLDERS = {
    "gguf": ({"gpt-oss-20b-mxfp4.gguf": b"GGUF"}, ["a GGUF model", "llama.cpp", PUBLISHED]),
    "gguf_with_config": ({"config.json": MODEL, "a.gguf": b"GGUF"}, ["a GGUF model", PUBLISHED]),
    "metal": ({"metal/model.bin": b"GPT-OSS v1.0\0\0\0\0"}, ["Metal implementation", PUBLISHED]),
    "metal_itself": ({"model.bin": b"GPT-OSS v1.0\0\0\0\0"}, ["Metal implementation", PUBLISHED]),
    "trainer": (
        {"checkpoint-500/config.json": MODEL, "checkpoint-1000/config.json": MODEL},
        ["2 checkpoints in subfolders (checkpoint-500, checkpoint-1000)", "checkpoint-1000"],
    ),
    "trainer_of_an_adapter": (
        {"checkpoint-5/adapter_config.json": ADAPTER, "runs/events.out": b""},
        ["1 checkpoint in subfolders (checkpoint-5)", "oss-lab inspect"],
    ),
    "trainer_state": (
        {"config.json": MODEL, "optimizer.pt": PICKLE, "rng_state.pth": PICKLE},
        ["a Trainer's state", "trainer.save_model"],
    ),
    "deepspeed": (
        {"config.json": MODEL, "global_step500/mp_rank_00_model_states.pt": PICKLE},
        ["DeepSpeed", "save_pretrained"],
    ),
    "fsdp": ({"__0_0.distcp": b""}, ["FSDP", "save_pretrained"]),
    "pickle": (
        {"config.json": MODEL, "pytorch_model-00001-of-00002.bin": PICKLE, "optimizer.pt": PICKLE},
        ["a pickle", "never opened", "save_pretrained"],
    ),
    "pt": ({"model.pt": PICKLE}, ["a pickle", "(model.pt)", "save_pretrained"]),
    "ckpt": ({"epoch=3.ckpt": PICKLE}, ["a pickle", "save_pretrained"]),
    "consolidated": (
        {"consolidated.00.pth": PICKLE, "params.json": {"dim": 4096}},
        ["Meta's format", "oss-lab inspect nano"],
    ),
    "onnx": ({"onnx/model.onnx": b"", "tokenizer.json": {}}, ["an ONNX model", PUBLISHED]),
    "openvino": ({"openvino_model.xml": "<?xml?>"}, ["an OpenVINO model", PUBLISHED]),
    "tensorrt": ({"rank0.engine": b"", "config.json": {}}, ["a TensorRT engine", PUBLISHED]),
    "flax": ({"flax_model.msgpack": b""}, ["Flax weights", "save_pretrained"]),
    "nemo": ({"gpt-oss.nemo": b""}, ["a NeMo archive", "save_pretrained"]),
    "mlx": ({"config.json": {**MODEL, "quantization": {"bits": 4}}, **WEIGHTS}, ["an MLX model"]),
    "awq": ({"config.json": quantized("awq"), **WEIGHTS}, ["quantized with AWQ", PUBLISHED]),
    "gptq": ({"config.json": quantized("gptq"), **WEIGHTS}, ["quantized with GPTQ", PUBLISHED]),
    "fp8": ({"config.json": quantized("fp8"), **WEIGHTS}, ["quantized with FP8", PUBLISHED]),
    "compressed_tensors": (
        {"config.json": quantized("compressed-tensors"), **WEIGHTS},
        ["quantized with compressed-tensors", PUBLISHED],
    ),
    "bitsandbytes": (
        {"config.json": quantized("bitsandbytes"), **WEIGHTS},
        ["quantized with bitsandbytes", PUBLISHED],
    ),
    "unknown_method": ({"config.json": quantized("new-q"), **WEIGHTS}, ["quantized with new-q"]),
    "llama": ({"config.json": LLAMA, **WEIGHTS}, ["model_type llama, LlamaForCausalLM", "nano"]),
    "llama_pickle": ({"config.json": LLAMA, "pytorch_model.bin": PICKLE}, ["model_type llama"]),
    "mixtral": (
        {"config.json": config("mixtral", "MixtralForCausalLM"), **WEIGHTS},
        ["another architecture (model_type mixtral", "oss-lab inspect nano"],
    ),
    "qwen": (
        {"config.json": config("qwen3_moe", "Qwen3MoeForCausalLM"), **WEIGHTS},
        ["another architecture (model_type qwen3_moe", "oss-lab inspect nano"],
    ),
    "diffusers": (
        {"model_index.json": {}, "unet/config.json": {}},
        ["a diffusers pipeline", "oss-lab inspect nano"],
    ),
    "sentence_transformers": (
        {"modules.json": "[]", "config.json": config("bert", "BertModel"), **WEIGHTS},
        ["a sentence-transformers model", "oss-lab inspect nano"],
    ),
    "tokenizer": (
        {"tokenizer.json": {}, "tokenizer_config.json": {}},
        ["only a tokenizer", PUBLISHED],
    ),
    "archive": ({"gpt-oss-20b.tar.gz": b""}, ["an archive", "unpack it"]),
    "empty": ({}, ["an empty folder", PUBLISHED]),
    "parent": (
        {"20b/config.json": MODEL, "120b/config.json": MODEL, "notes.txt": ""},
        ["2 checkpoints in subfolders (20b, 120b)", "oss-lab inspect"],
    ),
    "source_tree": ({"setup.py": ""}, ["contains no checkpoint", "use nano, 20b"]),
    "record": ({"evidence.json": {}}, ["oss-lab record", "read_evidence"]),
    "hub_cache": (
        {"models--openai--gpt-oss-20b/refs/main": "abc"},
        ["a Hugging Face cache with 1 model (openai/gpt-oss-20b)", "oss-lab inspect openai/gpt"],
    ),
    "hf_home": (
        {"hub/models--a--b/refs/main": "abc", "hub/models--c--d/refs/main": "abc"},
        ["a Hugging Face cache with 2 models (a/b, c/d)", "oss-lab inspect c/d"],
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_c6_folder(kind, tmp_path, capsys):
    files, said = FOLDERS[kind]
    folder = write(tmp_path / "some folder", files)
    sentence = refuse(folder, capsys)
    assert sentence.startswith(str(folder))
    for part in said:
        assert part in sentence


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("someone/gpt-oss-20b-ft", "someone/gpt-oss-20b-ft"),
        ("unsloth/gpt-oss-20b-unsloth-bnb-4bit", "openai/gpt-oss-20b"),
        ("/models/my base", "'/models/my base'"),
        (None, "BASE"),
    ],
)
@pytest.mark.parametrize("also", [{}, {"config.json": MODEL}, {"optimizer.pt": PICKLE}])
def test_c6_adapter_names_the_command_that_merges_it(base, said, also, tmp_path, capsys):
    fields = {**ADAPTER, "base_model_name_or_path": base}
    files = {"adapter_config.json": fields, "adapter_model.safetensors": b"", **also}
    folder = write(tmp_path / "lora", files)
    sentence = refuse(folder, capsys)
    command = f"oss-lab convert {said} --adapter {folder} --to huggingface --out MERGED"
    assert "is a LoRA adapter" in sentence
    assert sentence.endswith(command)


FILES = {
    "gguf": ("a.gguf", b"GGUF\3\0\0\0", ["a GGUF model", PUBLISHED]),
    "metal": ("model.bin", b"GPT-OSS v1.0\0\0\0\0", ["Metal implementation", PUBLISHED]),
    "pickle": ("model.pt", PICKLE, ["a pickle", "save_pretrained"]),
    "zipped_pickle": ("model.pth", b"PK\3\4", ["a pickle", "save_pretrained"]),
    "consolidated": ("consolidated.00.pth", PICKLE, ["Meta's format"]),
    "zip": ("20b.zip", b"PK\3\4", ["an archive", "unzip "]),
    "tar": ("20b.tar", b"\0" * 257 + b"ustar", ["an archive", "tar -xf "]),
    "tgz": ("20b.tgz", b"\x1f\x8b\x08", ["an archive", "tar -xf "]),
    "onnx": ("model.onnx", b"", ["an ONNX model", PUBLISHED]),
    "html": ("model.safetensors", HTML.encode(), ["a web page", "hf download"]),
    "pointer": ("model.safetensors", POINTER.encode(), ["git-lfs pointer: run git lfs pull in "]),
    "config": ("config.json", b"{}", ["is a file, not a folder", "oss-lab inspect "]),
    "tokenizer": ("tokenizer.json", b"{}", ["only a tokenizer"]),
    "empty": ("nothing", b"", ["is a file, not a folder"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_c6_file(kind, tmp_path, capsys):
    name, contents, said = FILES[kind]
    file = tmp_path / name
    file.write_bytes(contents)
    sentence = refuse(file, capsys)
    assert sentence.startswith(str(file))
    for part in said:
        assert part in sentence


def test_c6_weights_file_itself(write_tiny, capsys):
    folder = write_tiny()
    sentence = refuse(folder / "model.safetensors", capsys)
    assert sentence.endswith(f"a single weights file; give its folder: oss-lab inspect {folder}")


def test_c6_trace(tmp_path, nano, capsys):
    file = tmp_path / "run.safetensors"
    nano.trace("hi", ["resid.post"], layers=[0]).save(file)
    assert "is a trace, not a model" in refuse(file, capsys)
    assert "contains traces, not a model" in refuse(tmp_path, capsys)


def test_c6_mlx_by_its_metadata(tmp_path, capsys):
    write(tmp_path, {"config.json": MODEL})
    write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, {"format": "mlx"})
    assert "an MLX model" in refuse(tmp_path, capsys)


def test_c6_other_files_next_to_a_checkpoint_do_not_matter(write_tiny):
    folder = write_tiny("huggingface")
    write(
        folder,
        {
            "metal/model.bin": b"GPT-OSS v1.0",
            "optimizer.pt": PICKLE,
            "trainer_state.json": {},
            "a.gguf": b"GGUF",
            "onnx/model.onnx": b"",
            "checkpoint-500/config.json": {},
            "pytorch_model.bin": PICKLE,
        },
    )
    assert examine(folder).defects == []


def test_a_header_whose_length_looks_like_gzip_is_no_archive(write_tiny):
    file = write_tiny() / "model.safetensors"
    contents = file.read_bytes()
    length = int.from_bytes(contents[:8], "little")
    padding = 0x8B1F - length  # the first two bytes become gzip's
    header = contents[8 : 8 + length] + b" " * padding
    file.write_bytes((length + padding).to_bytes(8, "little") + header + contents[8 + length :])
    assert file.read_bytes()[:2] == b"\x1f\x8b"
    assert open_checkpoint(file.parent).layout == "original"


def test_no_pickle_is_opened(tmp_path, capsys, monkeypatch):
    def refuse_to_load(*_, **__):
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr("torch.load", refuse_to_load)
    monkeypatch.setattr("pickle.load", refuse_to_load)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", PICKLE)
    assert "never opened" in refuse(tmp_path, capsys)
    assert "never opened" in refuse(tmp_path / "model.pt", capsys)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"],
)
def test_c3_git_lfs_pointer(name, write_tiny, capsys):
    folder = write_tiny("huggingface")
    (folder / name).write_text(POINTER)
    assert refuse(folder, capsys) == f"{name} is a git-lfs pointer: run git lfs pull in {folder}"


def test_c3_every_pointer_is_a_defect(write_tiny):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    shards = sorted(folder.glob("*.safetensors"))
    for shard in shards:
        shard.write_text(POINTER)
    with pytest.raises(DefectiveCheckpointError, match=r"git lfs pull in .* more defect") as bad:
        open_checkpoint(folder)
    assert [defect.file for defect in bad.value.defects] == [shard.name for shard in shards]


def test_c3_pointers_of_a_clone_without_lfs(write_tiny, capsys):
    source = write_tiny("original")
    clone = source.parent / "clone"
    shutil.copytree(source, clone / "original")
    (clone / "original/model.safetensors").write_text(POINTER)
    assert "run git lfs pull in" in refuse(clone, capsys)


def test_web_page_instead_of_weights(write_tiny, capsys):
    folder = write_tiny()
    (folder / "model.safetensors").write_text(HTML)
    assert "model.safetensors is a web page" in refuse(folder, capsys)
