"""Headers that the safetensors library would refuse to open are refused before any use.

Our reader is stricter in one respect only: it refuses repeated names. Whatever it accepts, the
library must accept too; otherwise the user would get the library's traceback instead of one
sentence.
"""

import json
import struct

import pytest
from safetensors import SafetensorError, safe_open

from oss_lab.checkpoint.header import HeaderError, read_header

BODY = bytes(8)
ENTRY = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}


def write(file, text, body=BODY):
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return file


def library_accepts(file):
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                opened.get_tensor(name)
    except SafetensorError:
        return False
    return True


def header(**changes):
    return json.dumps({"a": ENTRY} | changes).encode()


def entry(**changes):
    return json.dumps({"a": ENTRY | changes}).encode()


ACCEPTED = [
    header(),
    header() + b"   ",
    header(__metadata__={"format": "pt"}),
    header(__metadata__=None),
    header(z={"dtype": "F32", "shape": [0, 5], "data_offsets": [8, 8]}),
    entry(shape=[1, 4, 1]),
    entry(dtype="U8", shape=[8]),
]
REFUSED = [
    (header(__metadata__={"format": 1}), "__metadata__"),
    (header(__metadata__=["pt"]), "__metadata__"),
    (entry(data_offsets=[False, 8]), "malformed shape or offset"),
    (entry(shape=[True, 4]), "malformed shape or offset"),
    (entry(data_offsets=[0.0, 8]), "malformed header entry"),
    (header(**{"\ud800": ENTRY}), "not valid Unicode"),
    (b"\xef\xbb\xbf" + header(), "is not JSON"),
    (header().decode().encode("utf-16"), "is not JSON"),
    (b"[]", "does not contain a JSON object"),
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted_by_both(tmp_path, text):
    file = write(tmp_path / "a.safetensors", text)
    assert read_header(file)
    assert library_accepts(file)


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_refused_by_both(tmp_path, text, sentence):
    file = write(tmp_path / "a.safetensors", text)
    with pytest.raises(HeaderError, match=sentence):
        read_header(file)
    assert not library_accepts(file)


def test_every_changed_byte_is_judged_as_by_the_library(tmp_path):
    """Ours may refuse more (a changed name may repeat another name), never less."""
    text = header(b={"dtype": "U8", "shape": [0], "data_offsets": [8, 8]})
    accepted = 0
    for position in range(len(text)):
        for byte in b'0-9"}[,:eE.ntf \xff\0':
            changed = text[:position] + bytes([byte]) + text[position + 1 :]
            file = write(tmp_path / "a.safetensors", changed)
            try:
                read_header(file)
            except HeaderError:
                continue
            accepted += 1
            assert library_accepts(file), changed
    assert accepted > 50


def test_a_file_of_another_format_is_not_called_truncated(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(HeaderError, match=r"claims a header of .* it is not a safetensors file"):
        read_header(file)
