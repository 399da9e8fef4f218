"""A vocabulary file in a checkpoint folder is compared with the named vocabulary, not ignored."""

import json
import shutil

import pytest

import oss_lab
from oss_lab.checkpoint.read import find_folder
from oss_lab.checkpoint.vocabulary import check_vocabulary
from oss_lab.cli.main import main
from oss_lab.errors import VocabularyError
from oss_lab.tokenizer import _BYTE_OF, HARMONY_SPECIALS, load_vocabulary

CHARACTER = {byte: character for character, byte in _BYTE_OF.items()}


def to_tokenizer_json(encoding):
    """The tokenizer.json of a vocabulary, as far as it is read."""
    specials = {encoding.encode_single_token(t): t for t in encoding.special_tokens_set}
    vocab = {
        "".join(CHARACTER[byte] for byte in encoding.decode_single_token_bytes(n)): n
        for n in range(min(specials))
    }
    added = [{"id": n, "content": token, "special": True} for n, token in specials.items()]
    return {"model": {"type": "BPE", "vocab": vocab}, "added_tokens": added}


@pytest.fixture(scope="module")
def nano_tokenizer():
    return to_tokenizer_json(load_vocabulary("nano"))


@pytest.fixture
def folder(tmp_path):
    """A copy of nano, without its vocabulary."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(find_folder("nano") / name, tmp_path / name)
    return tmp_path


def swap(tokenizer, a, b):
    """The same tokens with two ids exchanged: another vocabulary of the same size."""
    vocab = dict(tokenizer["model"]["vocab"])
    ids = {n: token for token, n in vocab.items()}
    vocab[ids[a]], vocab[ids[b]] = b, a
    return tokenizer | {"model": {"vocab": vocab}}


def write(folder, tokenizer):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def test_c7_the_same_vocabulary_is_accepted(folder, nano_tokenizer, nano):
    write(folder, nano_tokenizer)
    shutil.copy(find_folder("nano") / "nano.tiktoken", folder)
    assert oss_lab.load(folder, verbose=False).tokenizer is nano.tokenizer


def test_c7_another_vocabulary_of_the_same_size_is_refused(folder, nano_tokenizer, capsys):
    write(folder, swap(nano_tokenizer, 300, 301))
    for command in (
        ["generate", "x"],
        ["trace", "--prompt", "x", "--points", "embed", "--out", "o"],
    ):
        where = [str(folder)] if command[0] == "trace" else ["--model", str(folder)]
        assert main([command[0], *where, *command[1:]]) == 1
        err = capsys.readouterr().err
        line = next(line for line in err.splitlines() if line.startswith("oss-lab: "))
        assert "tokenizer.json is another vocabulary than nano: 2 of " in line
        assert "tokens differ, first id 300 (" in line
        assert "if the model was trained with nano, remove that file; otherwise use" in line


def test_c7_fewer_and_more_tokens_are_refused(folder, nano_tokenizer):
    vocab = nano_tokenizer["model"]["vocab"]
    for change in (lambda v: v.pop(next(iter(v))), lambda v: v.update({"zzzz": 100})):
        changed = dict(vocab)
        change(changed)
        write(folder, nano_tokenizer | {"model": {"vocab": changed}})
        with pytest.raises(VocabularyError, match=r"1 of .* tokens differ"):
            oss_lab.load(folder, verbose=False)


def test_c7_a_special_token_with_another_id_is_refused(folder, nano_tokenizer):
    added = [
        each | {"id": each["id"] + (each["content"] == "<|channel|>")}
        for each in nano_tokenizer["added_tokens"]
    ]
    write(folder, nano_tokenizer | {"added_tokens": added})
    with pytest.raises(
        VocabularyError, match=r"gives <\|channel\|> the id \d+, which is \d+ in nano"
    ):
        oss_lab.load(folder, verbose=False)
    write(folder, nano_tokenizer | {"added_tokens": []})
    with pytest.raises(VocabularyError, match=r"has no <\|startoftext\|>, which is \d+ in nano"):
        oss_lab.load(folder, verbose=False)


def test_c7_a_reserved_token_with_a_name_is_accepted(folder, nano_tokenizer):
    """Fine-tunes name a reserved id, for padding; text is still read and written alike."""
    named = nano_tokenizer["added_tokens"][-1] | {"content": "<|pad|>"}
    kept = [e for e in nano_tokenizer["added_tokens"] if e["content"] in HARMONY_SPECIALS]
    write(folder, nano_tokenizer | {"added_tokens": [*kept, named]})
    oss_lab.load(folder, verbose=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"vocab": {"\\u4e2d": 0}}}', "\xff"])
def test_c7_a_tokenizer_that_cannot_be_read_is_refused(folder, text):
    (folder / "tokenizer.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(VocabularyError, match=r"tokenizer\.json is not a byte-level tokenizer"):
        oss_lab.load(folder, verbose=False)


def test_c7_ranks_in_tiktokens_format_count_too(folder):
    lines = (find_folder("nano") / "nano.tiktoken").read_bytes().splitlines()
    first, last = lines[260].split()[0], lines[261].split()[0]
    lines[260], lines[261] = last + b" 260", first + b" 261"
    (folder / "nano.tiktoken").write_bytes(b"\n".join(lines))
    with pytest.raises(VocabularyError, match=r"2 of .*first id 260"):
        oss_lab.load(folder, verbose=False)
    (folder / "nano.tiktoken").write_bytes(b"?")
    with pytest.raises(VocabularyError, match=r"nano\.tiktoken cannot be read: a line is not"):
        oss_lab.load(folder, verbose=False)


def test_c7_the_published_vocabulary(o200k, tmp_path):
    """201,088 tokens; the file next to `original/` counts too."""
    tokenizer = to_tokenizer_json(o200k)
    write(tmp_path, tokenizer)
    (tmp_path / "original").mkdir()
    check_vocabulary(tmp_path, o200k)
    write(tmp_path, swap(tokenizer, 150_000, 150_001))
    with pytest.raises(VocabularyError, match="2 of 199,998 tokens differ, first id 150000"):
        check_vocabulary(tmp_path / "original", o200k)
