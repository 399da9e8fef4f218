"""Fixtures that several tests of oss_lab share. Everything from outside the project is optional: a
test that needs something missing is skipped and names it."""

import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
import tiktoken
import torch
from oss_kernels import mxfp4

import oss_lab
from oss_lab.checkpoint.layouts import Layout, tensor_table
from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_NANO, ModelConfig
from oss_lab.engine.sampler import sample
from oss_lab.engine.sampling import GREEDY
from oss_lab.lab import Lab
from oss_lab.model import Recorder, Transformer, no_hooks
from oss_lab.model.parts import PUBLISHED
from oss_lab.nano.training.export import export
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.recipe import STATE, Recipe, write_recipe
from oss_lab.nano.training.state import save_state
from oss_lab.proof.transformers_model import load_folder
from oss_lab.tokenizer import CACHE_NAME, HARMONY_SPECIALS, PACKAGES, load_vocabulary

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def golden():
    """`golden("harmony_render.json")`: a file of recorded reference vectors. Skips the test without
    it."""

    def load(name):
        path = SHARED / "golden" / name
        if not path.exists():
            pytest.skip(f"golden vectors ../shared/golden/{name} are absent")
        return json.loads(path.read_text(encoding="utf-8"))

    return load


@pytest.fixture(scope="session")
def tracked_files():
    """The text of each file that git tracks, by path, without assets and binaries.

    Skips the test outside a git checkout.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout, so its files are unknown")
    found = {}
    for name in filter(None, listed.split("\0")):
        with suppress(OSError, UnicodeDecodeError):
            found[name] = "" if "/assets/" in name else (root / name).read_text("utf-8")
    return found


@pytest.fixture(scope="session")
def vocab_folder():
    """A folder that holds o200k_base under tiktoken's cache name. Skips the test without it."""
    folders = [SHARED / "vocab"]
    for package, inside in PACKAGES.items():
        with suppress(metadata.PackageNotFoundError):
            folders.append(Path(str(metadata.distribution(package).locate_file(inside))).parent)
    for folder in folders:
        if (folder / CACHE_NAME).exists():
            return folder
    pytest.skip(f"the o200k vocabulary is neither in ../shared/vocab nor in {', '.join(PACKAGES)}")


@pytest.fixture(scope="session")
def o200k(vocab_folder):
    """tiktoken's o200k_harmony, read from the shared folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))
        return tiktoken.get_encoding("o200k_harmony")


@pytest.fixture(scope="session")
def tiny():
    """A byte-level vocabulary with Harmony's special tokens. Needs no file.

    A few merges end inside a character, to test spans and streams with split UTF-8.
    """
    merges = [b"th", b"the", b" t", b"in", b"an", b"\xe4\xbd", b"\x9f\x98", b"\xf0\x9f", b"  "]
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {merge: 256 + i for i, merge in enumerate(merges)}
    specials = {name: len(ranks) + i for i, name in enumerate(HARMONY_SPECIALS)}
    specials |= {f"<|reserved_{i}|>": i for i in range(len(ranks) + len(specials), 280)}
    pattern = r"\p{N}|[^\s\p{L}\p{N}]+| ?\p{L}+|\s+"
    return tiktoken.Encoding(
        "tiny", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials
    )


@pytest.fixture(scope="session")
def tiny_config():
    """A gpt-oss with two layers, whose checkpoint takes 104 kB."""
    return ModelConfig(
        num_hidden_layers=2,
        num_experts=4,
        experts_per_token=2,
        vocab_size=96,
        hidden_size=64,
        intermediate_size=32,
        head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initial_context_length=256,
    )


@pytest.fixture(scope="session")
def nano():
    """The shipped nano, loaded once per process. Tests must not change it."""
    return oss_lab.load("nano", verbose=False)


@pytest.fixture(scope="session")
def serve(nano):
    """`with serve(token=None) as url:`: a server with these settings, in a thread of this process.

    Its `server` extra is optional: without it the test is skipped.
    """
    pytest.importorskip("fastapi", reason="the extra `server` is not installed")
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    from oss_lab.server.app import build_app
    from oss_lab.server.listen import build_server, open_socket
    from oss_lab.server.settings import Settings

    @contextmanager
    def run(lab=nano, **settings):
        app = build_app(lab, Settings(**{"model": "nano", "token": "secret", **settings}))
        socket = open_socket("127.0.0.1", 0)
        server = build_server(app)
        thread = threading.Thread(target=server.run, args=([socket],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()

    return run


@pytest.fixture(scope="session")
def start_server():
    """`process, url, token = start_server(file)`: `oss-lab serve nano` that stores in this file."""
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

    def start(file):
        options = ["--port", "0", "--threads", "1", "--store", str(file)]
        process = subprocess.Popen(
            [sys.executable, "-m", "oss_lab", "serve", "nano", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OSS_LAB_TOKEN": "from-the-environment"},
        )
        assert process.stderr is not None
        line = next(each for each in process.stderr if "is served at" in each)
        token = process.stderr.readline().removeprefix("token: ").strip()
        assert token == "from-the-environment"
        return process, line.split()[-1], token

    return start


@pytest.fixture(scope="session")
def slow_nano(nano):
    """nano with 20 ms more per step, so a reply can be interrupted."""

    def sample_slowly(logits, samplings, draws):
        time.sleep(0.02)
        return sample(logits, samplings, draws)

    return nano.with_parts(sample=sample_slowly)


@pytest.fixture(scope="session")
def small_nano():
    """A model with nano's tokens and positions, one narrow layer and four experts."""
    return replace(
        GPT_OSS_NANO,
        num_hidden_layers=1,
        num_experts=4,
        experts_per_token=1,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        layer_types=(),
    )


@pytest.fixture(scope="session")
def small_recipe(small_nano):
    """A recipe that trains `small_nano` for six short steps."""
    return Recipe(model=small_nano, mix="short products", steps=6, tokens=250, warm_up=2)


@pytest.fixture(scope="session")
def finetune_base(tmp_path_factory, small_nano, scaled_tensors):
    """The folder of a checkpoint to fine-tune: two layers, random weights, nano's vocabulary."""
    config = replace(
        small_nano, num_hidden_layers=2, experts_per_token=2, sliding_window=8, layer_types=()
    )
    folder = tmp_path_factory.mktemp("finetune") / "base"
    write_checkpoint(folder, config, scaled_tensors(config))
    return folder


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """The folder of a run of zero steps, and the checkpoint exported from it, in that folder."""
    folder = tmp_path_factory.mktemp("run")
    config = replace(
        GPT_OSS_NANO,
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=32,
        num_experts=8,
        layer_types=(),
    )
    torch.manual_seed(0)
    model = Transformer(config, RoundedExperts)
    write_recipe(Recipe(model=config, steps=0), folder)
    save_state(folder / STATE, model, [], {}, 0)
    export(model, folder / "checkpoint")
    return folder


@pytest.fixture(scope="session")
def untrained(untrained_run):
    """A Lab with that checkpoint."""
    checkpoint = open_checkpoint(untrained_run / "checkpoint")
    return Lab(load_model(checkpoint), load_vocabulary("nano"), GREEDY, effort="high")


@pytest.fixture
def write_tiny(tmp_path, tiny_config):
    """`write_tiny("huggingface", max_shard_bytes=9000)`: writes a valid checkpoint and returns its
    folder."""

    def write(layout: Layout = "original", name="tiny", config=tiny_config, **options):
        tensors = random_tensors(config)
        write_checkpoint(tmp_path / name, config, tensors, layout=layout, **options)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def scaled_tensors():
    """`scaled_tensors(config, seed)`: like random_tensors, but sums and logits have an RMS near
    one, so attention, router and clamps behave as in a trained model."""

    def make(config, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def integers(low, high, shape):
            return torch.randint(low, high, shape, generator=generator).to(torch.uint8)

        tensors = {}
        for name, shape, role in ((s.name, s.shape, s.role) for s in tensor_table(config)):
            if role == "expert blocks":
                tensors[name] = integers(0, 256, shape)
                continue
            if role == "expert scales":  # random codes have an RMS of 2.9
                columns = shape[-1] * mxfp4.BLOCK
                exponent = mxfp4.SCALE_BIAS - round(math.log2(2.9 * columns**0.5))
                tensors[name] = integers(exponent - 1, exponent + 1, shape)
                continue
            values = torch.randn(shape, generator=generator)
            if role == "norm":
                values = 1 + 0.2 * values
            elif len(shape) == 1 or role == "expert bias":
                values *= 0.5
            elif role != "embedding":
                values *= shape[-1] ** -0.5
            tensors[name] = values.bfloat16()
        return tensors

    return make


@pytest.fixture(scope="session")
def random_model(scaled_tensors):
    """`random_model(config, seed=0)`: a float32 Transformer with `scaled_tensors`."""

    def make(config, seed=0):
        model = Transformer(config)
        model.load_state_dict(scaled_tensors(config, seed))
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def untied_tokens():
    """`untied_tokens(model, batch, seq)`: random tokens without near-ties in any router, so another
    order of summation chooses the same experts."""

    def draw(model, batch, seq):
        slots = model.config.experts_per_token
        for seed in range(100):
            generator = torch.Generator().manual_seed(seed)
            tokens = torch.randint(model.config.vocab_size, (batch, seq), generator=generator)
            watch = Recorder({"moe.router_logits"})
            model(tokens, hooks=watch)
            best = torch.stack([x.topk(slots + 1).values for (x,) in watch.seen.values()])
            if (best[..., -2] - best[..., -1]).min() > 1e-4:
                return tokens
        raise AssertionError("every draw has a near-tied router")

    return draw


class RecitingModel:
    """Replaces a Transformer: whatever the prompt, it predicts the next token of `script` almost
    with certainty, and repeats the last one after the end. Raises an exception that is in the
    script."""

    device = torch.device("cpu")
    parts = PUBLISHED

    def __init__(self, config, script):
        self.config = config
        self.script: list[Any] = script
        self.cache, self.prompts = None, []

    def __call__(self, tokens, cache, *, last, hooks=no_hooks):
        past, cache = cache, getattr(cache, "caches", [cache])[0]
        if cache is not self.cache:
            self.cache, self.at = cache, 0
            self.prompts.append([])
        if self.at == 0:
            self.prompts[-1] += tokens[0].tolist()
        past.advance(tokens.shape[1])
        logits = torch.zeros(len(tokens), last, self.config.vocab_size)
        if last:
            says = self.script[min(self.at, len(self.script) - 1)]
            if not isinstance(says, int):
                raise says
            logits[:, -1, says] = 20.0
            self.at += 1
        return logits


@pytest.fixture(scope="session")
def reciting_lab(tiny, tiny_config):
    """`reciting_lab("<|channel|>final<|message|>4<|return|>")`: a Lab whose model generates exactly
    that.

    Special tokens are written by name. Further arguments are token ids or exceptions.
    """

    def make(*script):
        parts = [
            tiny.encode(part, allowed_special="all") if isinstance(part, str) else [part]
            for part in script
        ]
        config = replace(tiny_config, vocab_size=288)
        model = RecitingModel(config, [token for part in parts for token in part])
        return Lab(cast(Transformer, model), tiny, GREEDY)

    return make


@pytest.fixture
def talk(monkeypatch, capsys):
    """`talk(lab, "a line", ...)`: what the chat prints after its greeting. Fails if the command
    does."""

    def chat(lab, *typed, arguments=()):
        monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: lab)
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        assert main(["chat", *arguments]) == 0
        output = capsys.readouterr()
        assert output.err == ""
        return output.out.split("\n", 1)[1]

    return chat


@pytest.fixture(scope="session")
def load_in_transformers():
    """`load_in_transformers(folder)`: GptOssForCausalLM in float32 with eager attention;
    transformers dequantizes the experts. Skips the test without transformers."""
    pytest.importorskip(
        "transformers", reason="transformers is not installed (the extra `test` holds it)"
    )

    def load(folder):
        model = load_folder(folder, torch.float32)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        return model

    return load
