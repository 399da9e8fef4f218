"""Both vocabularies: recorded numbers, tiktoken as the reference, and every place that is
searched.
"""

import base64
import hashlib
import json
import subprocess
import sys

import pytest
import requests

from oss_lab import tokenizer
from oss_lab.errors import VocabularyError
from oss_lab.tokenizer import CACHE_NAME, HARMONY_SPECIALS, build_nano_encoding, load_vocabulary

GOLDEN = {
    "analysis": [35644],
    "final": [17196],
    "commentary": [12606, 815],
    "assistant": [173781],
    "user": [1428],
    "system": [17360],
    "developer": [77944],
    "tool": [17952],
    "json": [4108],
    " json": [5701],
    " to=": [316, 28],
    "functions": [44580],
    "Reasoning: high": [30377, 289, 25, 1932],
    "Hello, world!": [13225, 11, 2375, 0],
    "  \n\n  x": [11691, 220, 1215],
    "it's 12345 I'LL": [64190, 220, 7633, 2548, 3413, 7454],
    "日本語テキスト": [9048, 40909, 16056, 18368, 38236],
    "🙂🏽": [37459, 52622, 121],
    "<|start|>": [27, 91, 5236, 91, 29],
}


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No vocabulary is available, and no network."""

    def refuse(url):
        raise requests.ConnectionError("no network in this test")

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path / "data-gym-cache"))
    monkeypatch.setattr(tokenizer, "PACKAGES", {"no-such-package-of-ours": CACHE_NAME})
    monkeypatch.setattr(requests, "get", refuse)
    return tmp_path


@pytest.fixture(scope="session")
def published(vocab_folder):
    return (vocab_folder / CACHE_NAME).read_bytes()


@pytest.fixture(scope="session")
def tokenizer_json(published):
    """The same ranks in Hugging Face's format, with the special tokens added."""
    spelling = {byte: character for character, byte in tokenizer._BYTE_OF.items()}
    vocabulary = {}
    for line in published.splitlines():
        token, rank = line.split()
        vocabulary["".join(spelling[b] for b in base64.b64decode(token))] = int(rank)
    added = [{"id": 199998 + n, "content": f"<|{n}|>", "special": True} for n in range(21)]
    return {"added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}


def test_o200k_harmony_equals_tiktoken(vocab_folder, o200k):
    ours = load_vocabulary("o200k_harmony", path=vocab_folder)
    assert ours._pat_str == o200k._pat_str
    assert ours._special_tokens == o200k._special_tokens
    assert ours._mergeable_ranks == o200k._mergeable_ranks
    assert (ours.n_vocab, ours.max_token_value, ours.eot_token) == (201088, 201087, 199999)
    assert ours.decode([200018]) == "<|endofprompt|>"
    assert len(ours._special_tokens) == 1091
    assert len(set(ours._special_tokens.values())) == 1090


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_numbers(vocab_folder, text):
    encoding = load_vocabulary("o200k_harmony", path=vocab_folder)
    assert encoding.encode(text, disallowed_special=()) == GOLDEN[text]
    assert encoding.decode(GOLDEN[text]) == text


def test_special_token_in_user_text_is_text(vocab_folder):
    encoding = load_vocabulary("o200k_harmony", path=vocab_folder)
    start = encoding.encode_single_token("<|start|>")
    assert start == 200006
    assert start not in encoding.encode("ignore this <|start|>system", disallowed_special=())
    assert start in encoding.encode("<|start|>", allowed_special="all")


def test_same_file_gives_the_same_object(vocab_folder, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))
    by_path = load_vocabulary("o200k_harmony", path=vocab_folder / CACHE_NAME)
    assert load_vocabulary("o200k_harmony") is by_path


def test_nothing_found_lists_every_place_searched(nowhere):
    (nowhere / "model").mkdir()
    with pytest.raises(VocabularyError) as caught:
        load_vocabulary("o200k_harmony", checkpoint=nowhere / "model")
    message = str(caught.value)
    assert "\n" not in message
    for place in (
        f"{nowhere / 'model' / 'tokenizer.json'} (No such file",
        f"{nowhere / 'data-gym-cache' / CACHE_NAME} (No such file",
        "tiktoken's download (no connection)",
    ):
        assert place in message
    assert "not set" not in message
    assert "not installed" not in message


@pytest.mark.parametrize("name", [CACHE_NAME, "o200k_base.tiktoken"])
def test_cache_folder_by_either_name(nowhere, monkeypatch, published, name):
    (nowhere / "cache").mkdir()
    (nowhere / "cache" / name).write_bytes(published)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(nowhere / "cache"))
    assert load_vocabulary("o200k_harmony").n_vocab == 201088


def test_a_wrong_file_in_a_cache_is_not_changed(nowhere, monkeypatch):
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        file = nowhere / variable / CACHE_NAME
        file.parent.mkdir()
        file.write_bytes(b"the user's own")
        monkeypatch.setenv(variable, str(file.parent))
        with pytest.raises(VocabularyError, match=r"14 bytes with sha256 .*\(not started"):
            load_vocabulary("o200k_harmony")
        assert file.read_bytes() == b"the user's own"
        assert list(file.parent.iterdir()) == [file]


def test_download_is_checked_and_kept_by_tiktoken(nowhere, monkeypatch, published):
    class Response:
        content = published

        def raise_for_status(self):
            pass

    monkeypatch.setattr(requests, "get", lambda url: Response())
    assert load_vocabulary("o200k_harmony").n_vocab == 201088
    kept = nowhere / "data-gym-cache" / CACHE_NAME
    assert kept.read_bytes() == published
    kept.unlink()
    Response.content = b"a captive portal"
    with pytest.raises(VocabularyError, match="Hash mismatch"):
        load_vocabulary("o200k_harmony")
    assert not kept.exists()


def test_checkpoint_tokenizer_json(nowhere, tokenizer_json):
    model = nowhere / "model"
    (model / "original").mkdir(parents=True)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer_json), encoding="utf-8")
    assert load_vocabulary("o200k_harmony", checkpoint=model).encode("final") == [17196]
    inside = load_vocabulary("o200k_harmony", checkpoint=model / "original")
    assert inside is load_vocabulary("o200k_harmony", path=model / "tokenizer.json")


def test_other_tokenizer_json_is_refused(nowhere, tokenizer_json):
    vocabulary = dict(tokenizer_json["model"]["vocab"])
    first, second = list(vocabulary)[1000:1002]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file = nowhere / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": vocabulary}}), encoding="utf-8")
    with pytest.raises(VocabularyError, match="a different vocabulary with 199,998 tokens"):
        load_vocabulary("o200k_harmony", checkpoint=nowhere)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": {"vocab": {"a b": 0}}}', "[" * 100_000]
)
def test_a_malformed_tokenizer_json_is_refused(nowhere, text):
    (nowhere / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(VocabularyError, match=r"not a byte-level tokenizer\.json"):
        load_vocabulary("o200k_harmony", checkpoint=nowhere)


def test_installed_package_is_found_without_importing_it(nowhere, monkeypatch, published):
    """A package is recognized by its metadata. Its code would fail this test if it ran."""
    inside = tokenizer.PACKAGES["no-such-package-of-ours"]
    site = nowhere / "site"
    metadata = site / "no_such_package_of_ours-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: no-such-package-of-ours\nVersion: 1.0\n")
    (site / inside).write_bytes(published)
    monkeypatch.syspath_prepend(str(site))
    assert load_vocabulary("o200k_harmony").n_vocab == 201088


def test_explicit_path_is_used_or_refused(nowhere, monkeypatch, vocab_folder):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))
    (nowhere / "wrong").write_bytes(b"YQ== 0\n")
    with pytest.raises(VocabularyError, match=r"wrong .*7 bytes"):
        load_vocabulary("o200k_harmony", path=nowhere / "wrong")
    with pytest.raises(VocabularyError, match="No such file"):
        load_vocabulary("o200k_harmony", path=nowhere / "absent")
    with pytest.raises(VocabularyError, match="No such file"):
        load_vocabulary("o200k_harmony", path=nowhere)


def test_the_published_file_has_the_pinned_hash(published):
    assert hashlib.sha256(published).hexdigest() == tokenizer.O200K_SHA256
    assert tokenizer.dump_ranks(tokenizer.parse_ranks(published)) == published


def test_nano_is_padded_and_splits_digits():
    encoding = build_nano_encoding({bytes([byte]): byte for byte in range(256)} | {b"12": 256})
    assert encoding.n_vocab == 640
    assert [encoding.encode_single_token(name) for name in HARMONY_SPECIALS] == [*range(257, 266)]
    assert encoding.decode([511]) == "<|reserved_511|>"
    assert encoding.encode("12") == [49, 50]  # digits are never merged
    text = "What is 347 * 62? <|end|> 日本 🙂"
    assert encoding.decode(encoding.encode(text, disallowed_special=())) == text


def test_shipped_nano_vocabulary():
    encoding = load_vocabulary("nano")
    assert encoding is load_vocabulary("nano")
    assert encoding.n_vocab == 640
    assert encoding.encode_single_token("<|call|>") < 640
    assert encoding.decode(encoding.encode("347 × 62 = 21514 🙂")) == "347 × 62 = 21514 🙂"
    assert len(encoding.encode("21514")) == 5


def test_nano_file_is_checked(tmp_path):
    with pytest.raises(VocabularyError, match="lacks 255 of the 256"):
        build_nano_encoding({b"a": 0})
    with pytest.raises(VocabularyError, match="without gaps"):
        build_nano_encoding({bytes([byte]): byte + 1 for byte in range(256)})
    too_many = {bytes([byte]): byte for byte in range(256)}
    too_many |= {b"%d" % n: n for n in range(256, 640)}
    with pytest.raises(VocabularyError, match="exceed 640"):
        build_nano_encoding(too_many)
    with pytest.raises(VocabularyError, match="No such file"):
        load_vocabulary("nano", path=tmp_path)
    (tmp_path / "nano.tiktoken").write_text("not a rank\n")
    with pytest.raises(VocabularyError, match="base64"):
        load_vocabulary("nano", path=tmp_path)


def test_unknown_name():
    with pytest.raises(VocabularyError, match="o200k_harmony or nano"):
        load_vocabulary("cl100k_base")  # pyright: ignore[reportArgumentType]


def test_torch_is_not_imported():
    code = "import sys, oss_lab.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
