"""Names of models: short names, Hub ids, the Hub's cache, half downloads and mistyped names (cases
C4 and C5). Nothing here uses the network."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

import oss_lab
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.names import find_repository, find_snapshot, name_repository
from oss_lab.checkpoint.read import find_folder, open_checkpoint
from oss_lab.cli.main import main
from oss_lab.errors import LabError

REVISION = "6cee5e81ee83917806bbde320786a8fb61efebee"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hub. Using the network fails the test."""

    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.fixture
def cached(hub, write_tiny, tiny_config):
    """`cached("someone/name")`: the snapshot of a downloaded model, of two shards and an index."""

    def put(repository, revision=REVISION, main=True):
        source = write_tiny("huggingface", "source", max_shard_bytes=60_000, overwrite=True)
        cache = hub / f"models--{repository.replace('/', '--')}"
        shutil.copytree(source, cache / "snapshots" / revision)
        (cache / "refs").mkdir(exist_ok=True)
        if main:
            (cache / "refs/main").write_text(revision)
        return cache / "snapshots" / revision

    return put


def refuse(name, capsys) -> str:
    """The sentence with which generate and load refuse a name."""
    assert main(["generate", "hi", "--model", str(name)]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    with pytest.raises(LabError) as error:
        oss_lab.load(name)
    assert str(error.value) == line.removeprefix("oss-lab: ").rstrip("\n")
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "repository", "size", "command"),
    [
        ("20b", "openai/gpt-oss-20b", "13.8 GB", "20b"),
        ("gpt-oss-20b", "openai/gpt-oss-20b", "13.8 GB", "20b"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b", "13.8 GB", "20b"),
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b", "65.2 GB", "120b"),
        (
            "openai/gpt-oss-safeguard-20b",
            "openai/gpt-oss-safeguard-20b",
            "13.8 GB",
            "openai/gpt-oss-safeguard-20b",
        ),
        (
            "gpt-oss-safeguard-120b",
            "openai/gpt-oss-safeguard-120b",
            "65.2 GB",
            "openai/gpt-oss-safeguard-120b",
        ),
    ],
)
def test_c5_a_published_model_that_is_absent(name, repository, size, command, hub, capsys):
    sentence = refuse(name, capsys)
    assert str(hub / f"models--{repository.replace('/', '--')}") in sentence
    assert f"to download {size}, run oss-lab chat {command} --download" in sentence
    assert "download=True" in sentence


def test_c5_a_fine_tune_that_is_absent(hub, capsys):
    sentence = refuse("someone/gpt-oss-20b-ft", capsys)
    assert str(hub / "models--someone--gpt-oss-20b-ft") in sentence
    assert "oss-lab chat someone/gpt-oss-20b-ft --download" in sentence


@pytest.mark.parametrize(
    ("name", "layers", "shown"),
    [
        ("openai/gpt-oss-20b", 24, "20b"),
        ("gpt-oss-120b", 36, "120b"),
        ("openai/gpt-oss-safeguard-20b", 24, "20b"),
    ],
)
def test_c5_inspect_needs_no_weights_of_a_published_model(name, layers, shown, capsys):
    assert main(["inspect", name, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["name"], report["config"]["num_hidden_layers"]) == (shown, layers)


@pytest.mark.parametrize("name", ["openai/gpt-oss-20b", "20b", "gpt-oss-20b", "someone/name"])
def test_c5_a_download_opens_by_its_name(name, cached, capsys):
    snapshot = cached("someone/name" if name == "someone/name" else "openai/gpt-oss-20b")
    assert find_checkpoint(name).folder == snapshot
    assert open_checkpoint(name).folder == snapshot
    if name == "someone/name":
        assert main(["inspect", name]) == 0
        assert f"{snapshot}: Hugging Face layout, 2 files" in capsys.readouterr().out


def test_c5_a_fine_tune_loads_and_generates(hub, write_tiny, tiny_config, capsys):
    source = write_tiny("huggingface", "source", replace(tiny_config, vocab_size=640))
    shutil.copytree(source, hub / "models--someone--name/snapshots" / REVISION)
    assert oss_lab.load("someone/name", verbose=False).config.vocab_size == 640
    assert main(["generate", "hi", "--model", "someone/name", "--max-tokens", "2"]) == 0


def test_c5_paths_into_the_cache(cached):
    snapshot = cached("someone/name")
    for path in (snapshot, snapshot.parent.parent, snapshot.parent):
        assert find_folder(path).resolve() == snapshot, path
    assert name_repository(snapshot) == name_repository(snapshot.parent.parent) == "someone/name"


def test_c5_a_local_folder_wins_over_the_hub(cached, write_tiny, tmp_path):
    cached("openai/gpt-oss-20b")
    here = write_tiny("original", "openai/gpt-oss-20b")
    assert find_repository("openai/gpt-oss-20b") is None
    assert open_checkpoint("openai/gpt-oss-20b").folder.resolve() == here
    assert find_repository("20b") == "openai/gpt-oss-20b"  # a short name stays the model's


def test_c5_the_main_revision_is_used(cached):
    old, new = cached("a/b", "0" * 40), cached("a/b", "1" * 40)
    assert find_folder("a/b") == new
    (new.parents[1] / "refs/main").write_text(f"{old.name}\n")
    assert find_folder("a/b") == old


@pytest.mark.parametrize("written", ["", "..", "gone", "\0"])
def test_c5_a_damaged_reference_is_not_followed(written, cached):
    snapshot = cached("a/b")
    (snapshot.parents[1] / "refs/main").write_text(written)
    assert find_folder("a/b") == snapshot


def test_c5_several_revisions_without_main(cached, capsys):
    cached("a/b", "0" * 40, main=False)
    snapshots = cached("a/b", "1" * 40, main=False).parent
    sentence = refuse("a/b", capsys)
    assert sentence.startswith(f"{snapshots} contains 2 snapshots; choose one, such as ")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_c5_the_environment_moves_the_cache(variable, cached, hub, tmp_path):
    snapshot = cached("someone/name")
    folder = hub if variable == "HF_HUB_CACHE" else hub.parent
    done = subprocess.run(
        [sys.executable, "-m", "oss_lab", "inspect", "someone/name"],
        env={**os.environ, variable: str(folder)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(snapshot))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gpt-oss20b", "gpt-oss-20b"),
        ("20B", "20b"),
        ("nanoo", "nano"),
        ("Nano", "nano"),
        ("gpt-oss-nano", "nano"),
        ("120", "120b"),
        ("gpt_oss_120b", "gpt-oss-120b"),
        ("GPT-OSS:20b", "gpt-oss-20b"),
        ("gpt-oss", "gpt-oss-20b"),
        ("openai/gpt-oss20b", "openai/gpt-oss-20b"),
        ("OpenAI/gpt-oss-120B", "openai/gpt-oss-120b"),
        ("safeguard-20b", "gpt-oss-safeguard-20b"),
    ],
)
def test_c5_a_near_miss_gets_the_nearest_name(name, near, capsys):
    said = f"{name} is neither a folder nor a known model; did you mean {near}?"
    assert refuse(name, capsys) == said
    assert main(["inspect", name]) == 1
    assert capsys.readouterr().err == f"oss-lab: {said}\n"


@pytest.mark.parametrize("name", ["qwen3", "/models/nanoo", "a/b/20B", "", "~nobody/20b"])
def test_other_names_get_no_guess(name, capsys):
    assert "did you mean" not in refuse(name, capsys)


@pytest.mark.parametrize(
    ("address", "use"),
    [
        ("https://huggingface.co/openai/gpt-oss-20b", "oss-lab inspect openai/gpt-oss-20b"),
        ("https://huggingface.co/a/b/tree/main", "oss-lab inspect a/b"),
        ("huggingface.co/a/b", "oss-lab inspect a/b"),
        ("hf.co/a/b", "oss-lab inspect a/b"),
        ("hf://a/b", "oss-lab inspect a/b"),
        ("https://example.com/model.zip", "a folder or Hub id"),
        ("s3://bucket/model", "a folder or Hub id"),
        ("www.example.com", "a folder or Hub id"),
    ],
)
def test_c6_web_address(address, use, capsys):
    sentence = refuse(address, capsys)
    assert sentence.startswith(f"{address} is a web address; use ")
    assert sentence.endswith(use)
    assert main(["inspect", address]) == 1


@pytest.mark.skipif(os.name == "nt", reason="these are paths on Windows")
@pytest.mark.parametrize(
    ("path", "use"),
    [
        ("C:\\models\\gpt-oss-20b", "oss-lab inspect /mnt/c/models/gpt-oss-20b"),
        ("d:/my models", "oss-lab inspect '/mnt/d/my models'"),
        ("models\\gpt-oss-20b", "oss-lab inspect models/gpt-oss-20b"),
        ("\\\\server\\share", "oss-lab inspect //server/share"),
    ],
)
def test_c6_windows_path(path, use, capsys):
    assert refuse(path, capsys) == f"{path} is a Windows path; use its path here, as in {use}"


def remove_shard(snapshot):
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    return ["model-00002-of-00002.safetensors"]


def remove_the_target_of_a_link(snapshot):
    shard = snapshot / "model-00001-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to("../../blobs/gone")
    return [shard.name]


def remove_weights(snapshot):
    for shard in snapshot.glob("*.safetensors"):
        shard.unlink()
    return ["*.safetensors"]


def remove_weights_and_index(snapshot):
    remove_weights(snapshot)
    (snapshot / "model.safetensors.index.json").unlink()
    return ["*.safetensors"]


def remove_config(snapshot):
    (snapshot / "config.json").unlink()
    return ["config.json"]


def keep_the_tokenizer(snapshot):
    for file in snapshot.iterdir():
        file.unlink()
    (snapshot / "tokenizer.json").write_text("{}")
    return ["config.json", "*.safetensors"]


def keep_nothing(snapshot):
    for file in snapshot.iterdir():
        file.unlink()
    return ["config.json", "*.safetensors"]


HALVES = [
    remove_shard,
    remove_the_target_of_a_link,
    remove_weights,
    remove_weights_and_index,
    remove_config,
    keep_the_tokenizer,
    keep_nothing,
]


def test_a_missing_file_with_a_name_is_not_named_by_its_ending_too(cached):
    snapshot = cached("openai/gpt-oss-20b")
    for shard in snapshot.glob("*.safetensors"):
        shard.unlink()
        shard.symlink_to("../../blobs/gone")
    with pytest.raises(LabError, match=r"lacks model-00001-of-00002\.safetensors") as error:
        oss_lab.load("20b")
    assert "*.safetensors" not in str(error.value)


@pytest.mark.parametrize("cut", HALVES)
@pytest.mark.parametrize("by", ["name", "path", "cache folder"])
def test_c4_half_a_download(cut, by, cached, capsys):
    snapshot = cached("openai/gpt-oss-20b")
    missing = cut(snapshot)
    name = {"name": "20b", "path": snapshot, "cache folder": snapshot.parents[1]}[by]
    with pytest.raises(LabError) as error:
        oss_lab.load(name)
    sentence = str(error.value)
    assert sentence.startswith(
        f"openai/gpt-oss-20b is only partly downloaded: {snapshot} lacks "
    ), sentence
    for file in missing:
        assert file in sentence
    assert "to finish, run oss-lab chat 20b --download" in sentence


def test_c4_half_a_fine_tune_in_inspect(cached, capsys):
    remove_shard(cached("someone/name"))
    assert main(["inspect", "someone/name"]) == 1
    sentence = capsys.readouterr().err
    assert "someone/name is only partly downloaded" in sentence
    assert "oss-lab chat someone/name --download" in sentence


def test_c4_half_a_download_into_a_folder(write_tiny, capsys):
    folder = write_tiny("huggingface", max_shard_bytes=60_000)
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    assert open_checkpoint(folder).folder == folder
    remove_shard(folder)
    sentence = refuse(folder, capsys)
    assert f"a model is only partly downloaded: {folder} lacks model-00002-of" in sentence
    assert "run hf download again" in sentence


def test_c4_a_folder_that_is_not_a_download_keeps_its_sentence(write_tiny, capsys):
    folder = write_tiny("huggingface", max_shard_bytes=60_000)
    remove_shard(folder)
    assert "download" not in refuse(folder, capsys)


def test_an_empty_cache_folder(hub, capsys):
    (hub / "models--openai--gpt-oss-20b/refs").mkdir(parents=True)
    sentence = refuse(hub / "models--openai--gpt-oss-20b", capsys)
    assert "has no downloaded files; run oss-lab chat 20b --download" in sentence
    assert "is not on this machine" in refuse("20b", capsys)


@pytest.fixture
def downloads(monkeypatch):
    """The calls of `snapshot_download`, which does nothing."""
    calls = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: calls.append((a, k)))
    return calls


@pytest.mark.parametrize("name", ["20b", "openai/gpt-oss-20b", "someone/name"])
def test_only_download_downloads(name, downloads):
    with pytest.raises(LabError):
        find_checkpoint(name)
    assert downloads == []
    with pytest.raises(LabError):  # the stand-in downloads nothing
        find_checkpoint(name, download=True)
    [((repository,), options)] = downloads
    assert repository == (name if "/" in name else "openai/gpt-oss-20b")
    assert options["ignore_patterns"] == ["original/*", "metal/*"]


def test_a_complete_download_is_not_repeated(cached, downloads):
    snapshot = cached("someone/name")
    assert find_checkpoint("someone/name", download=True).folder == snapshot
    assert downloads == []


def test_c4_download_finishes_a_half_download(cached, monkeypatch):
    snapshot = cached("someone/name")
    [name] = remove_shard(snapshot)

    def finish(repository, **_):
        shutil.copy(snapshot.parents[3] / "source" / name, snapshot / name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", finish)
    assert find_checkpoint("someone/name", download=True).folder == snapshot


def test_a_failed_download_is_one_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    for error, said in (
        (LocalEntryNotFoundError("offline"), "the Hugging Face Hub cannot be reached"),
        (OSError("No space\nleft"), "No space left"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        with pytest.raises(LabError) as refused:
            find_checkpoint("20b", download=True)
        assert str(refused.value) == f"openai/gpt-oss-20b could not be downloaded: {said}"


def test_no_snapshot_without_a_cache(hub):
    assert find_snapshot(hub / "models--a--b") is None
