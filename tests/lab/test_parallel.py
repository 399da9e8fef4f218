"""A model split over two processes gives the logits of one, and each process holds about half.

The processes are started once. Run as a script, this file is one of them: it computes everything
that the tests compare, with both checkpoints, and saves it.
"""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from oss_kernels.backends import load_backend
from torch.testing import assert_close

import oss_lab
from oss_lab.analysis.attribution import attribution
from oss_lab.checkpoint.fake import write_random
from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_20B, GPT_OSS_120B, GPT_OSS_NANO
from oss_lab.engine.cache import KVCache
from oss_lab.engine.parallel import processes
from oss_lab.engine.parallel.kernels import SplitKernelEngine
from oss_lab.engine.parallel.model import SplitTransformer
from oss_lab.engine.parallel.part import Part
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request
from oss_lab.errors import LabError
from oss_lab.hooks.points import FORWARD_POINTS, POINTS
from oss_lab.model import Recorder

LENGTHS = (1, 127, 128, 129, 300)
STEPS = 6
KERNEL_LENGTHS = (1, 5, 129)
# 5 experts over two processes are 2 and 3.
CONFIG = replace(
    GPT_OSS_NANO,
    num_hidden_layers=2,
    num_experts=5,
    experts_per_token=2,
    hidden_size=64,
    intermediate_size=32,
    num_attention_heads=8,
    num_key_value_heads=4,
    layer_types=(),
)
TRACED = tuple(name for name in POINTS if name != "attn.head_out")
CHANGES = (
    oss_lab.AblateHead(layer=0, head=5),
    oss_lab.Hook("attn.q_rot", lambda q, here: q * 0.5, layer=1),
    oss_lab.AblateExpert(layer=1, expert="all"),
    oss_lab.Hook("moe.act", lambda act, here: act.clamp(max=0.1), layer=0),
    oss_lab.RemoveSink(layer=0, head=2),
)


def load(name: str, **options: Any) -> oss_lab.Lab:
    return oss_lab.load(name, device="cpu", kernels="reference", verbose=False, **options)


def compute(lab: oss_lab.Lab, tokens: list[int]) -> dict[str, torch.Tensor]:
    """The float32 values that are compared."""
    found = {f"{n} tokens": lab.logits(tokens[:n]) for n in LENGTHS}
    batch = lab.logits_batch([tokens[:7], tokens[:129]])
    found |= {f"row {row} of a ragged batch": logits for row, logits in enumerate(batch)}
    cache, row = KVCache(lab.config), torch.tensor([tokens])
    with torch.inference_mode():
        lab.model(row[:, :40], cache, last=0)
        for step in range(STEPS):
            logits = lab.model(row[:, 40 + step : 41 + step], cache)[0]
            found[f"decode step {step}"] = logits.clone()
    text = lab.tokenizer.decode(tokens[:20])
    reply = lab.generate(
        text, max_tokens=STEPS, temperature=0.0, ignore_stops=True, points=["out.logits"]
    )
    assert reply.trace is not None
    found["greedy generation"] = reply.trace.tensor("out.logits")
    sampled = lab.generate(text, max_tokens=STEPS, temperature=1.0, seed=7, ignore_stops=True)
    found["sampled ids"] = torch.tensor(sampled.ids)
    trace = lab.trace(tokens[:50], TRACED)
    found |= {f"point {name}": values for name, values in trace.tensors.items()}
    for change in CHANGES:
        found[str(change)] = lab.logits(tokens[:50], interventions=[change])
    return found


def refusals(lab: oss_lab.Lab, rank: int) -> dict[str, str]:
    """The sentences of what a split model refuses."""
    cases = {
        "attribution": lambda: attribution(lab, [1, 2, 3], 1, 5),
        "gradients": lambda: lab.gradients([1, 2, 3], 5),
        "parts": lambda: lab.with_parts(rms_norm=lambda x, scale, eps: x),
        "head_out": lambda: lab.trace([1, 2, 3], ["attn.head_out"]),
        "other tokens": lambda: lab.logits([1, 2, 3 + rank]),
        "other lengths": lambda: lab.logits([1] * (2 + rank)),
        "other points": lambda: lab.trace([1, 2], ["embed", "attn.q"][: 1 + rank]),
        "other changes": lambda: lab.logits(
            [1, 2], interventions=[oss_lab.AblateHead(layer=0, head=rank)]
        ),
        "no seed": lambda: lab.generate(
            "a", max_tokens=200, temperature=50.0, seed=None, ignore_stops=True
        ),
    }
    return {name: explain(case) for name, case in cases.items()}


def explain(case: Any) -> str:
    try:
        case()
    except LabError as error:
        return str(error)
    return ""


def count_bytes(lab: oss_lab.Lab) -> int:
    model = lab.model
    return sum(each.nbytes for each in (*model.parameters(), *model.buffers()))


def work(folder: Path) -> None:
    """What each of the two processes does."""
    rank, inputs = int(os.environ["RANK"]), torch.load(folder / "inputs")
    found: dict[str, Any] = {}
    for name, tokens in inputs.items():
        lab = load(name, parallel=True)
        found[name] = compute(lab, tokens)
        found[f"bytes of {name}"] = count_bytes(lab)
        model = cast(SplitTransformer, lab.model)
        engine = SplitKernelEngine(model, load_backend("reference"))
        requests = [Request(tuple(tokens[:n])) for n in KERNEL_LENGTHS]
        found[f"kernels of {name}"] = read_logits(engine, requests)
        reasons = {point: engine.explain_refusal([point], ()) for point in FORWARD_POINTS}
        found["refused by kernels"] = {point: why for point, why in reasons.items() if why}
    rounded = load(str(folder / "fake"), dtype="bfloat16", parallel=True)
    found["bfloat16"] = rounded.logits(inputs["nano"][:129])
    found["refusals"] = refusals(load("nano", parallel=True), rank)
    cache = KVCache(rounded.config)
    rounded.model(torch.tensor([[1, 2]]), cache)
    found["keys"] = cache.layers[0].tail
    torch.save(found, folder / f"found{rank}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def wholes(folder, nano):
    """The models in one process, by name."""
    write_random(CONFIG, folder / "fake", "random weights", "huggingface", 60_000, seed=3)
    return {"nano": nano, str(folder / "fake"): load(str(folder / "fake"))}


def draw_untied(lab: oss_lab.Lab) -> list[int]:
    """Random tokens without near-ties in any router, so other sums choose the same experts."""
    slots = lab.config.experts_per_token
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(600, (1, max(LENGTHS)), generator=generator)
        watch = Recorder({"moe.router_logits"})
        lab.model(tokens, hooks=watch)
        best = torch.stack([x.topk(slots + 1).values for (x,) in watch.seen.values()])
        if (best[..., -2] - best[..., -1]).min() > 2e-5:
            return tokens[0].tolist()
    raise AssertionError("every draw has a near-tied router")


@pytest.fixture(scope="module")
def inputs(wholes):
    return {name: draw_untied(lab) for name, lab in wholes.items()}


@pytest.fixture(scope="module")
def found(folder, inputs):
    """What each of the two processes computed."""
    torch.save(inputs, folder / "inputs")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, str(folder)]
    started = [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    return [torch.load(folder / f"found{rank}") for rank in range(2)]


def assert_same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Equal within 1e-5, and 1e-6 of the largest value: nano's logits reach 20 and its activations
    60, where neighboring float32 numbers are 2e-6 and 4e-6 apart."""
    largest = float(expected[expected.isfinite()].abs().max())
    assert_close(
        found, expected, atol=1e-5 + 1e-6 * largest, rtol=0.0, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("which", [0, 1], ids=["nano", "random weights"])
def test_two_processes_equal_one(found, wholes, inputs, which):
    name = list(wholes)[which]
    expected = compute(wholes[name], inputs[name])
    for rank in range(2):
        assert found[rank][name].keys() == expected.keys()
        for what, value in expected.items():
            assert_same(found[rank][name][what], value, what)


@pytest.mark.parametrize("which", [0, 1], ids=["nano", "random weights"])
def test_an_expert_kernel_gives_the_same_logits(found, wholes, inputs, which):
    name = list(wholes)[which]
    for rank in range(2):
        for n, logits in zip(KERNEL_LENGTHS, found[rank][f"kernels of {name}"], strict=True):
            assert_same(logits, wholes[name].logits(inputs[name][:n]), f"{n} tokens")


def test_only_the_inside_of_an_expert_is_refused_with_kernels(found):
    assert found[0]["refused by kernels"] == {
        name: f"{name}: the expert kernel never stores it"
        for name in ("moe.gate", "moe.up", "moe.act", "moe.expert_out")
    }


def test_both_processes_have_the_same_bits(found, wholes):
    first, second = found
    for name in wholes:
        for what, value in first[name].items():
            assert torch.equal(value, second[name][what]), (name, what)


def test_bfloat16_is_as_exact_as_in_one_process(found, folder, wholes, inputs):
    exact = wholes[str(folder / "fake")].logits(inputs["nano"][:129])
    rounded = load(str(folder / "fake"), dtype="bfloat16").logits(inputs["nano"][:129])
    error = (rounded - exact).norm()
    assert 0 < (found[0]["bfloat16"] - exact).norm() < 1.5 * error


def test_each_process_holds_about_half(found, wholes):
    for name, lab in wholes.items():
        whole = count_bytes(lab)
        everywhere = sum(
            parameter.nbytes
            for key, parameter in lab.model.named_parameters()
            if re.search(r"norm\.scale|gate\.|out\.bias", key)
        )
        parts = [each[f"bytes of {name}"] for each in found]
        assert sum(parts) == whole + everywhere
        assert max(parts) < 0.62 * whole  # 3 of 5 random experts, half of the rest
    assert max(each["bytes of nano"] for each in found) < 0.53 * count_bytes(wholes["nano"])


def test_each_process_caches_the_keys_of_its_heads(found):
    assert [each["keys"].shape[2] for each in found] == [CONFIG.num_key_value_heads // 2] * 2


def test_what_needs_all_weights_is_refused(found):
    for each in found:
        for what in ("attribution", "gradients", "parts", "head_out"):
            reason = "needs all weights in one process, and this model is split over 2; load it"
            assert reason in each["refusals"][what], what


def test_processes_that_differ_all_stop_with_the_reason(found):
    first, second = (each["refusals"] for each in found)
    for what in ("other tokens", "other lengths", "other points", "other changes", "no seed"):
        assert first[what] == second[what]
        assert re.match("process 1 has other .* than process 0; run the same calls", first[what])


@pytest.mark.parametrize("config", [GPT_OSS_NANO, CONFIG], ids=["nano", "random"])
def test_the_parts_of_every_tensor_make_the_whole(config):
    counts = [count for count in (1, 2, 4) if config.num_key_value_heads % count == 0]
    for spec in tensor_table(config):
        tensor = torch.arange(torch.Size(spec.shape).numel()).view(spec.shape)
        for count in counts:
            parts = [Part(config, rank, count).cut(spec.name, tensor) for rank in range(count)]
            if (
                count > 1
                and spec.role not in ("norm", "router")
                and not spec.name.endswith("out.bias")
            ):
                assert sum(part.numel() for part in parts) == tensor.numel()
            assert torch.equal(
                torch.cat([part.flatten() for part in parts]).unique(), tensor.flatten()
            )


def test_each_process_keeps_the_heads_of_its_groups():
    rows = torch.arange(6 * 16)[:, None]  # two heads of 16 rows each for q, k and v
    config = replace(GPT_OSS_NANO, num_attention_heads=2, num_key_value_heads=2, vocab_size=2)
    q, k, v = Part(config, 1, 2).cut("block.0.attn.qkv.weight", rows).split(16)
    assert (q[0], k[0], v[0]) == (16, 3 * 16, 5 * 16)


@pytest.mark.parametrize(
    ("config", "count", "possible"),
    [
        (GPT_OSS_NANO, 3, "1 or 2"),
        (GPT_OSS_20B, 3, "1, 2, 4 or 8"),
        (GPT_OSS_120B, 16, "1, 2, 4 or 8"),
    ],
)
def test_a_split_without_equal_heads_is_refused(config, count, possible):
    with pytest.raises(LabError, match=rf"cannot be split over {count} processes; use {possible}$"):
        Part(config, 0, count)


def test_a_model_alone_cannot_be_parallel(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(LabError, match="RANK is not set: start the command with torchrun"):
        load("nano", parallel=True)


def test_absent_processes_are_one_sentence(monkeypatch):
    monkeypatch.setattr(processes, "START", processes.timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(LabError, match=r"did not find each other \(RANK=0, .*torch: Timed out"):
        load("nano", parallel=True)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(LabError, match=r"did not find each other \(RANK=first, .*; torch: invalid"):
        load("nano", parallel=True)


def test_a_failed_exchange_is_one_sentence(monkeypatch):
    def fail(x):
        raise RuntimeError("[pair.cc:553] Connection closed by peer. More\nframe #0")

    monkeypatch.setattr(processes.dist, "all_reduce", fail)
    with pytest.raises(
        LabError,
        match=r"process 1 of 2 could not exchange values with the others \(torch: \[pair.cc:553\]"
        r" Connection closed by peer\); look for the first error of another process$",
    ):
        processes.Processes(1, 2).all_reduce(torch.ones(3))


@pytest.mark.slow
def test_torchrun_generates_one_reply(capsys):
    arguments = ["generate", "What is 3 * 4?", "--effort", "low", "--json"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    printed = subprocess.run(
        [*launch, "-m", "oss_lab", *arguments, "--parallel"], capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    assert main(arguments) == 0
    split, whole = (
        json.loads(text)["tokens"] for text in (printed.stdout, capsys.readouterr().out)
    )
    for one, other in zip(split, whole, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)


def test_a_parallel_command_reads_no_standard_input(capsys):
    assert main(["generate", "--parallel"]) == 1
    assert "--parallel reads no standard input" in capsys.readouterr().err


if __name__ == "__main__":
    work(Path(sys.argv[1]))
