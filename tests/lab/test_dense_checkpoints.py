"""Fine-tunes whose experts are dense: they load, convert to MXFP4 and back, or are refused in one
sentence. The largest real part, one layer of 20b, converts in bounded time and memory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oss_kernels import mxfp4
from safetensors.torch import load_file, save_file

import oss_lab
from oss_lab.checkpoint import memory
from oss_lab.checkpoint.examine import examine
from oss_lab.checkpoint.layouts import LAYOUTS, tensor_table
from oss_lab.checkpoint.plan import plan_memory
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.rewrite import write_values
from oss_lab.checkpoint.tensor_files import TensorFiles
from oss_lab.checkpoint.values import Value, read_values
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.errors import CheckpointError, LabError

MODEL = "model.safetensors"
EXPERTS = "model.layers.{}.mlp.experts.{}"
QUESTION = "What is 3 * 4?"


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """nano with dense experts, in the Hugging Face layout."""
    return convert("nano", tmp_path_factory.mktemp("dense"), "--experts", "bf16")


@pytest.fixture
def copy(dense, tmp_path):
    """`copy(edit)`: that folder, with its tensors edited; None removes one."""

    def write(edit):
        tensors = load_file(dense / MODEL)
        edit(tensors)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy/config.json").write_bytes((dense / "config.json").read_bytes())
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, tmp_path / "copy" / MODEL, {"format": "pt"})
        return tmp_path / "copy"

    return write


def convert(source, out, *options, to="huggingface"):
    command = ["convert", str(source), "--to", to, "--out", str(out), *options]
    assert main(command) == 0
    return out


def misname(tensors):
    """As transformers 5 saves a dequantized model."""
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        tensors[f"{name}_blocks"] = tensors.pop(name)


def is_refused(capsys, *command):
    """The only line on stderr of a command that fails."""
    capsys.readouterr()
    assert main(list(map(str, command))) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_c1_published_names_and_orientation(dense):
    """transformers' parameters are transposed: hidden x outputs."""
    tensors = load_file(dense / MODEL)
    assert tensors[EXPERTS.format(0, "gate_up_proj")].shape == (32, 96, 192)
    packed = dict(open_checkpoint("nano").tensors())
    for layer in range(4):
        for name, ours in (("gate_up_proj", "mlp1"), ("down_proj", "mlp2")):
            whole = f"block.{layer}.mlp.{ours}_weight"
            exact = mxfp4.dequantize(packed[f"{whole}.blocks"], packed[f"{whole}.scales"])
            assert torch.equal(tensors[EXPERTS.format(layer, name)].mT.float(), exact)
    assert "quantization_config" not in json.loads((dense / "config.json").read_text())


@pytest.mark.parametrize("save_original_format", [False, True])
def test_c1_c2_what_transformers_writes(save_original_format, tmp_path, nano):
    """A dequantized model, under the published names and under those of the blocks."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from oss_lab.proof.transformers_model import load_folder

    model = load_folder(convert("nano", tmp_path / "packed"), torch.bfloat16)
    assert isinstance(model, transformers.GptOssForCausalLM)
    saved = tmp_path / "saved"
    model.save_pretrained(saved, save_original_format=save_original_format)
    names = load_file(saved / MODEL).keys()
    assert (EXPERTS.format(0, "gate_up_proj_blocks") in names) == save_original_format
    lab = oss_lab.load(saved, verbose=False)
    assert torch.equal(lab.logits(QUESTION), nano.logits(QUESTION))
    back = convert(saved, tmp_path / "back", "--experts", "mxfp4", to="original")
    lab = oss_lab.load(back, verbose=False)
    assert torch.equal(lab.logits(QUESTION), nano.logits(QUESTION))


def test_c1_dense_weights_load_on_the_reference_engine(dense, nano):
    lab = oss_lab.load(dense, verbose=False)
    assert torch.equal(lab.logits(QUESTION), nano.logits(QUESTION))
    reply = lab.chat(QUESTION)
    assert reply.final == nano.chat(QUESTION).final
    trace = lab.trace(reply, ["moe.expert_ids"])
    assert (trace.origin.kernels, trace.origin.experts) == ("reference", "bf16")
    assert nano.trace(reply, ["moe.expert_ids"]).origin.experts == "mxfp4"


def test_c1_the_plan_counts_dense_experts(dense, capsys):
    weights = 4 * 32 * 3 * 96 * 96
    plan = plan_memory(GPT_OSS_NANO, dtype="float32", storage="bf16")
    assert (plan.dense_experts, plan.packed_experts, plan.expert_cache) == (4 * weights, 0, 0)
    assert plan.total == plan.weights + plan.kv_cache + 4 * weights
    oss_lab.load(dense)
    assert "dense experts 13.5 MiB" in capsys.readouterr().err
    assert main(["inspect", str(dense)]) == 0
    assert "experts dense in BF16" in capsys.readouterr().out
    assert main(["inspect", str(dense), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["experts"] == "bf16"
    assert shown["checkpoint_bytes"] == sum(
        located.end - located.start for located in open_checkpoint(dense).located.values()
    )


def test_c1_too_little_memory_is_refused_with_the_way_out(dense, monkeypatch):
    monkeypatch.setattr(memory, "find_free_memory", lambda device: 2**20)
    sentence = (
        r"needs 0\.0 GiB in float32 with its dense experts, and 0\.0 GiB are free on cpu; pack"
    )
    with pytest.raises(LabError, match=sentence):
        oss_lab.load(dense, verbose=False)


def test_free_memory_is_found_or_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert memory.find_free_memory(torch.device("cpu")) is None
    memory.MEMINFO.write_text("MemTotal: 9 kB\nMemAvailable:   3 kB\n")
    assert memory.find_free_memory(torch.device("cpu")) == 3 * 1024
    assert memory.find_free_memory(torch.device("meta")) is None


def test_c1_kernels_refuse_dense_experts(dense, capsys):
    sentence = (
        "the cpu kernels read experts packed as MXFP4, and these are dense in BF16; pack them"
    )
    with pytest.raises(LabError, match=sentence):
        oss_lab.load(dense, kernels="cpu", verbose=False)
    lab = oss_lab.load(dense, kernels="auto")
    assert lab.engines.main.name == "reference"
    assert "(the kernels read MXFP4 experts, and these are BF16)" in capsys.readouterr().err


def test_c1_auto_names_the_reason_in_a_trace(dense, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OSS_LAB_KERNELS", "auto")
    out = tmp_path / "run.safetensors"
    (tmp_path / "ids.json").write_text("[1, 2]")
    command = ["trace", str(dense), "--points", "embed", "--out", str(out), "--tokens"]
    assert main([*command, str(tmp_path / "ids.json")]) == 0
    assert "computed by the reference engine: the kernels read experts" in capsys.readouterr().err
    assert "MXFP4" in (oss_lab.read_trace(out).origin.reason or "")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", ["published", "misnamed"])
def test_c1_c2_a_dequantized_model_converts_without_error(copy, layout, names, tmp_path, capsys):
    source = copy(misname if names == "misnamed" else lambda tensors: None)
    out = convert(source, tmp_path / "out", "--experts", "mxfp4", to=layout)
    printed = capsys.readouterr().out
    exact = "relative RMS error 0.000%, largest error 0, 73,728 of 73,728 blocks exact"
    assert f"mlp.experts.gate_up_proj: {exact}" in printed
    ours = {(v.name, v.expert): v.tensor for v in read_values(open_checkpoint("nano"))}
    for value in read_values(open_checkpoint(out)):
        assert torch.equal(value.tensor, ours[value.name, value.expert])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dense_experts_survive_both_layouts(dense, layout, tmp_path):
    other = convert(dense, tmp_path / "other", "--max-shard-size", "900KB", to=layout)
    back = convert(other, tmp_path / "back")
    assert (back / MODEL).read_bytes() == (dense / MODEL).read_bytes()
    assert open_checkpoint(other).experts == "bf16"


def test_c1_rounding_errors_are_those_of_the_definition(copy, tmp_path, capsys):
    torch.manual_seed(0)
    name = EXPERTS.format(1, "down_proj")
    noisy = torch.randn(32, 96, 96).bfloat16()

    def edit(tensors):
        tensors[name] = noisy

    out = convert(copy(edit), tmp_path / "out", "--experts", "mxfp4")
    exact = noisy.mT.float()
    near = mxfp4.dequantize(*mxfp4.quantize(exact))
    others = [
        value.tensor.float()
        for value in read_values(open_checkpoint("nano"))
        if value.name.endswith("down_proj") and value.name != name
    ]
    power = exact.square().sum() + sum(each.square().sum() for each in others)
    rms = float(((near - exact).square().sum() / power).sqrt())
    blocks = 4 * 32 * 96 * 3
    unchanged = int(((near - exact).unflatten(-1, (-1, 32)).abs().amax(-1) == 0).sum())
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"mlp.experts.down_proj: relative RMS error {rms:.3%},"
        f" largest error {float((near - exact).abs().max()):.3g},"
        f" {blocks * 3 // 4 + unchanged:,} of {blocks:,} blocks exact"
    )
    packed = dict(open_checkpoint(out).tensors())
    assert torch.equal(
        mxfp4.dequantize(
            packed["block.1.mlp.mlp2_weight.blocks"], packed["block.1.mlp.mlp2_weight.scales"]
        ),
        near,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_c1_f16_and_f32_are_refused_with_the_way_out_and_convert(copy, dtype, tmp_path, capsys):
    def edit(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors["lm_head.weight"] = (tensors["lm_head.weight"] * 1.001).to(dtype)

    source = copy(edit)
    assert "not BF16; `oss-lab convert` rounds it" in is_refused(capsys, "inspect", source)
    out = convert(source, tmp_path / "out", "--experts", "mxfp4")
    printed = capsys.readouterr().out
    assert "lm_head.weight: relative RMS error 0." in printed
    assert "self_attn.q_proj.weight: relative RMS error 0.000%, largest error 0\n" in printed
    stored = load_file(source / MODEL)["lm_head.weight"]
    assert torch.equal(
        dict(open_checkpoint(out).tensors())["unembedding.weight"], stored.bfloat16()
    )


def test_values_are_streamed_by_name_and_expert(dense):
    for source in ("nano", dense):
        checkpoint = open_checkpoint(source)
        values = list(read_values(checkpoint))
        assert [v.name for v in values[:3]] == [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.norm.weight",
        ]
        experts = [v for v in values if v.name == EXPERTS.format(2, "gate_up_proj")]
        assert [v.expert for v in experts] == list(range(32))
        assert {tuple(v.tensor.shape) for v in experts} == {(192, 96)}
        assert sum(v.expert is None for v in values) == 3 + 15 * 4


def test_values_can_be_edited_between_reading_and_writing(tmp_path, nano):
    def double(values):
        for value in values:
            scale = 2 if value.name.endswith("down_proj") and value.expert == 5 else 1
            yield replace(value, tensor=value.tensor.float() * scale)

    checkpoint = open_checkpoint("nano")
    written = write_values(tmp_path / "out", checkpoint.config, double(read_values(checkpoint)))
    assert written.rounding["mlp.experts.down_proj"].largest == 0
    doubled = dict(open_checkpoint(tmp_path / "out").tensors())
    ours = dict(checkpoint.tensors())
    for n, factor in ((4, 1), (5, 2)):
        name = "block.3.mlp.mlp2_weight"
        one, two = (
            mxfp4.dequantize(each[f"{name}.blocks"][n], each[f"{name}.scales"][n])
            for each in (ours, doubled)
        )
        assert torch.equal(two, factor * one)


@pytest.mark.parametrize("fault", ["nan", "inf", "missing", "twice", "unknown", "shape"])
def test_values_that_cannot_be_written_leave_nothing(tmp_path, fault):
    checkpoint = open_checkpoint("nano")

    def values():
        for value in read_values(checkpoint):
            at = value.name == EXPERTS.format(1, "down_proj") and value.expert == 3
            if at and fault in ("nan", "inf"):
                value.tensor[4, 5] = float(fault)
            if at and fault == "shape":
                value = replace(value, tensor=value.tensor[:, :64])
            if not (at and fault == "missing"):
                yield value
            if at and fault == "twice":
                yield value
        if fault == "unknown":
            yield Value("model.extra.weight", None, torch.zeros(2))

    sentence = {
        "nan": r"down_proj of expert 3 contains NaN or infinity",
        "inf": r"down_proj of expert 3 contains NaN or infinity",
        "missing": r"block\.1\.mlp\.mlp2_weight\.blocks|down_proj_blocks is missing",
        "twice": r"down_proj_blocks was written twice",
        "unknown": r"tensor model\.extra\.weight does not belong to this configuration",
        "shape": r"down_proj_blocks has rows of shape \[1, 96, 2, 16\] at 3",
    }[fault]
    with pytest.raises(CheckpointError, match=sentence):
        write_values(tmp_path / "out", checkpoint.config, values())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("experts", "name", "largest"),
    [
        ("mxfp4", "gate_up_proj", 3.5 * 2.0**126),  # 4 units of 2^126
        ("bf16", "gate_up_proj", 511 * 2.0**119),
        ("mxfp4", "lm_head.weight", 511 * 2.0**119),
    ],
)
def test_weights_that_round_to_infinity(experts, name, largest, tmp_path):
    checkpoint = open_checkpoint("nano")

    def values(number):
        for value in read_values(checkpoint):
            tensor = value.tensor.float()
            if value.name.endswith(name):
                tensor[3, 4] = number
            yield replace(value, tensor=tensor)

    below = float(torch.tensor(largest).nextafter(torch.tensor(0.0)))
    for number, out in ((-largest, "infinite"), (below, "finite")):
        if out == "infinite":
            with pytest.raises(CheckpointError, match="which rounds to infinity"):
                write_values(tmp_path / out, checkpoint.config, values(number), experts=experts)
            assert not (tmp_path / out).exists()
        else:
            write_values(tmp_path / out, checkpoint.config, values(number), experts=experts)
            assert main(["inspect", str(tmp_path / out), "--deep"]) == 0


def test_streamed_files_have_the_bytes_of_the_library(tiny_config, tmp_path):
    tensors = random_tensors(tiny_config)
    with TensorFiles(tmp_path, {"ours": list(tensor_table(tiny_config))}) as files:
        for name in reversed(tensors):
            files.write(name, 0, tensors[name])
    save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_some_layers_packed_and_some_dense(copy, capsys):
    def edit(tensors):
        for name in ("gate_up_proj", "down_proj"):
            full = EXPERTS.format(2, name)
            matrices = tensors.pop(full).mT.float().contiguous()
            tensors[f"{full}_blocks"], tensors[f"{full}_scales"] = mxfp4.quantize(matrices)

    folder = copy(edit)
    [defect] = examine(folder).defects
    assert defect.kind == "storage"
    assert "stores some experts packed (model.layers.2" in defect.sentence
    assert "and some dense (model.layers.0" in defect.sentence
    assert "all layers need the same storage" in is_refused(capsys, "convert", folder, "--to",
        "original", "--out", folder / "x")  # fmt: skip


def test_the_same_experts_under_both_names(copy):
    def edit(tensors):
        name = EXPERTS.format(0, "down_proj")
        tensors[f"{name}_blocks"] = tensors[name].clone()

    [defect] = examine(copy(edit)).defects
    assert (
        "holds the same experts as model.layers.0.mlp.experts.down_proj; remove" in defect.sentence
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.experts.gate_up_projs.3.weight",
        "model.layers.1.mlp.experts.down_projs.0.weight.absmax",
        "model.layers.0.mlp.experts.7.gate_up_proj.weight",
    ],
)
def test_one_tensor_per_expert_is_recognized(copy, name):
    found = examine(copy(lambda tensors: tensors.update({name: torch.zeros(2, 2)})))
    [defect] = found.defects
    assert defect.sentence.startswith(f"tensor {name} in {MODEL} belongs to one expert")
    assert "save_pretrained_merged" in defect.sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lm_head.weight", "tensor lm_head.weight is missing"),
        (EXPERTS.format(1, "down_proj"), "experts.down_proj is missing"),
        (EXPERTS.format(1, "down_proj_bias"), "experts.down_proj_bias is missing"),
        ("model.layers.0.self_attn.o_proj.bias", "self_attn.o_proj.bias is missing"),
    ],
)
def test_a_missing_tensor_of_a_dense_checkpoint(copy, name, sentence):
    [defect] = examine(copy(lambda tensors: tensors.update({name: None}))).defects
    assert sentence in defect.sentence


def test_other_faults_of_a_dense_checkpoint(copy):
    def edit(tensors):
        name = EXPERTS.format(1, "down_proj")
        tensors[name] = tensors[name][:, :64]
        tensors["model.layers.0.mlp.shared_expert.weight"] = torch.zeros(1)

    folder = copy(edit)
    fields = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(fields))
    assert [(d.kind, d.field or d.tensor) for d in examine(folder).defects] == [
        ("config", "tie_word_embeddings"),
        ("unknown", "model.layers.0.mlp.shared_expert.weight"),
        ("shape", EXPERTS.format(1, "down_proj")),
    ]


def test_a_half_written_shard(dense, tmp_path, capsys):
    folder = convert(dense, tmp_path / "shards", "--max-shard-size", "3MB")
    last = sorted(folder.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1000])
    assert f"{last.name}: tensor" in is_refused(capsys, "generate", "x", "--model", folder)


SCRIPT = """
import re, sys
from pathlib import Path
import oss_lab.checkpoint.rewrite
from oss_lab.cli.main import main
# Not getrusage: its peak includes the memory of the process that started this one.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
status = main(["convert", *sys.argv[1:]])
print(peak() - before)
sys.exit(status)
"""


def measure_convert(*arguments):
    """CPU seconds on one core, since other processes may be busy, and bytes of memory above what
    Python and torch need."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    after = os.times()
    seconds = after.children_user - before.children_user
    seconds += after.children_system - before.children_system
    return seconds, 1024 * int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_c1_a_layer_of_20b_converts_in_bounded_time_and_memory(tmp_path, capsys):
    """One layer of 32 dense experts. The limit of 30 s is for a machine half as fast."""
    config = replace(GPT_OSS_20B, num_hidden_layers=1, layer_types=(), vocab_size=640)
    generator = torch.Generator().manual_seed(0)

    def values():
        for spec in tensor_table(config, "bf16"):
            for stored in spec.huggingface:
                if spec.role == "expert weight":
                    matrix = torch.randn(spec.shape[1:], generator=generator).bfloat16()
                    for n in range(config.num_experts):
                        yield Value(stored.name, n, matrix.roll(n, 0))
                else:
                    yield Value(stored.name, None, torch.zeros(stored.shape).bfloat16())

    write_values(tmp_path / "dense", config, values(), experts="bf16")
    layer_bytes = sum(s.nbytes for s in tensor_table(config, "bf16") if s.role == "expert weight")
    command = ("--to", "original", "--out", tmp_path / "packed", "--experts", "mxfp4")
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc, which this system does not have")
    seconds, used = measure_convert(tmp_path / "dense", *command)
    with capsys.disabled():
        print(f"\none dense layer of 20b: {seconds:.1f} s of one core, {used / 2**30:.2f} GiB")
    assert seconds < 30
    one_expert = layer_bytes // config.num_experts
    assert one_expert < used < 2 * layer_bytes
