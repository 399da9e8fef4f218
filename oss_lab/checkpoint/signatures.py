"""What files that are not a gpt-oss checkpoint look like: by their names, or by their first bytes.

`recognize.py` looks them up in order. Each row has what it is and what to do next. Pickles are
recognized by their names and never opened.
"""

from dataclasses import dataclass

PUBLISHED_WEIGHTS = "use the published weights: oss-lab chat 20b --download"
RESAVE = "save the model as safetensors with transformers: model.save_pretrained(DIR)"
READS = "oss-lab reads only gpt-oss checkpoints, such as nano: oss-lab inspect nano"


@dataclass(frozen=True)
class Signature:
    """Files of one kind.

    Attributes:
        patterns: glob patterns, relative to the folder, of the file that gives it away.
        what: completes "DIR is/contains ...".
        advice: the next command.
    """

    patterns: tuple[str, ...]
    what: str
    advice: str


PIPELINES = (
    Signature(("model_index.json",), "a diffusers pipeline, not a language model", READS),
    Signature(
        ("modules.json", "config_sentence_transformers.json"),
        "a sentence-transformers model",
        READS,
    ),
)
"""Folders that have other models inside, whatever else they contain."""

WEIGHTS = (
    Signature(("*.gguf",), "a GGUF model, the format of llama.cpp", PUBLISHED_WEIGHTS),
    Signature(
        ("metal/model.bin",),
        "weights for OpenAI's Metal implementation (metal/model.bin)",
        PUBLISHED_WEIGHTS,
    ),
    Signature(
        ("consolidated*.pth", "consolidated*.pt"),
        "a checkpoint in Meta's format (consolidated.*.pth), which is a pickle",
        READS,
    ),
    Signature(("*.onnx", "onnx/*.onnx"), "an ONNX model", PUBLISHED_WEIGHTS),
    Signature(("openvino_model.xml",), "an OpenVINO model", PUBLISHED_WEIGHTS),
    Signature(("*.engine",), "a TensorRT engine", PUBLISHED_WEIGHTS),
    Signature(("tf_model.h5", "*.msgpack"), "TensorFlow or Flax weights", RESAVE),
    Signature(("*.nemo",), "a NeMo archive", RESAVE),
    Signature(
        ("pytorch_model*.bin",),
        "PyTorch weights in a pickle, which can run code and is never opened",
        RESAVE,
    ),
    Signature(
        ("global_step*", "*_optim_states.pt", "*.distcp", "pytorch_model_fsdp*"),
        "sharded training state (DeepSpeed or FSDP)",
        "merge it with the framework that wrote it, then " + RESAVE,
    ),
    Signature(
        ("optimizer.pt", "optimizer.bin", "trainer_state.json", "training_args.bin"),
        "a Trainer's state without the model's weights",
        "save them with trainer.save_model(DIR)",
    ),
    Signature(
        ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle"),
        "a pickle, which can run code and is never opened",
        RESAVE,
    ),
    Signature(
        ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z"),
        "an archive",
        "unpack it and give the folder: oss-lab inspect DIR",
    ),
    Signature(
        ("tokenizer.json", "tokenizer_config.json", "*.tiktoken", "vocab.json"),
        "only a tokenizer, without weights",
        PUBLISHED_WEIGHTS,
    ),
)
"""Weights in another format. They matter only in a folder without gpt-oss's .safetensors files."""

GGUF, METAL = WEIGHTS[:2]
ARCHIVE = next(each for each in WEIGHTS if "*.zip" in each.patterns)
WEB_PAGE = Signature(
    (), "a web page, not the file that its name promises", "download it again with hf download"
)
HEADS: tuple[tuple[int, bytes, Signature], ...] = (
    (0, b"gguf", GGUF),
    (0, b"gpt-oss v1.0", METAL),
    (0, b"<!doctype", WEB_PAGE),
    (0, b"<html", WEB_PAGE),
    (0, b"<?xml", WEB_PAGE),
    (0, b"pk\x03\x04", ARCHIVE),
    (0, b"\x1f\x8b", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE),
    (0, b"7z\xbc\xaf", ARCHIVE),
    (257, b"ustar", ARCHIVE),
)
"""(offset, the bytes there in lower case, what the file is)."""

LFS = b"version https://git-lfs"

QUANTIZATIONS = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "compressed-tensors": "compressed-tensors",
    "bitsandbytes": "bitsandbytes",
    "modelopt": "NVIDIA's ModelOpt",
    "torchao": "torchao",
    "hqq": "HQQ",
    "quanto": "Quanto",
    "eetq": "EETQ",
    "aqlm": "AQLM",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "quark": "Quark",
    "auto-round": "AutoRound",
}
"""Values of quant_method, and the name of the method."""
