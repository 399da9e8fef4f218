"""Each defect of a checkpoint folder gives one sentence with the right names, before any weight is
read."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.checkpoint.defects import KINDS
from oss_lab.checkpoint.examine import examine
from oss_lab.checkpoint.layouts import LAYOUTS, tensor_table
from oss_lab.checkpoint.read import DefectiveCheckpointError, open_checkpoint

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
# One tensor of each kind under its two names.
SINKS = {"original": "block.1.attn.sinks", "huggingface": "model.layers.1.self_attn.sinks"}
SCALES = {
    "original": "block.1.mlp.mlp2_weight.scales",
    "huggingface": "model.layers.1.mlp.experts.down_proj_scales",
}
BLOCKS = {layout: name.replace("scales", "blocks") for layout, name in SCALES.items()}

both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


def replace_tensors(file, **tensors):
    """Rewrite a file with some tensors replaced (double underscores for dots) or, with None,
    dropped."""
    loaded = load_file(file)
    for name, tensor in tensors.items():
        loaded[name] = tensor
    save_file({n: t for n, t in loaded.items() if t is not None}, file, {"format": "pt"})


def rewrite_header(file, edit):
    """Replace a header's JSON text with edit(text); keep the bytes of the tensors."""
    contents = file.read_bytes()
    length = struct.unpack("<Q", contents[:8])[0]
    header = edit(contents[8 : 8 + length].decode()).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + contents[8 + length :])


def edit_json(file, edit):
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))


def defects(folder, kind=None):
    """All defects. If a kind is given, there must be no other."""
    found = examine(folder).defects
    if kind is not None:
        assert {defect.kind for defect in found} == {kind}, found
    for defect in found:
        assert "\n" not in defect.sentence
    order = [KINDS.index(defect.kind) for defect in found]
    assert order == sorted(order)
    return found


@both_layouts
def test_a_valid_checkpoint_has_no_defects(write_tiny, layout):
    assert defects(write_tiny(layout)) == []


def test_no_folder(tmp_path):
    [defect] = defects(tmp_path / "absent", "folder")
    assert defect.sentence.startswith(f"{tmp_path / 'absent'} does not exist; use nano, ")
    (tmp_path / "file").touch()
    assert "is a file, not a folder" in defects(tmp_path / "file", "folder")[0].sentence


def test_no_weights(write_tiny):
    folder = write_tiny()
    (folder / MODEL).unlink()
    [defect] = defects(folder, "folder")
    assert defect.sentence == f"{folder} contains no .safetensors file"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "contains no config.json"),
        ("{", "config.json is not JSON"),
        ("[]", "config.json does not contain a JSON object"),
        ('{"head_dim": 16, "head_dim": 64}', "config.json names head_dim twice"),
        ("\xff", "config.json is not JSON"),
        ("[" * 100_000, "config.json is not JSON"),
    ],
)
def test_config_that_cannot_be_read(write_tiny, text, sentence):
    file = write_tiny() / "config.json"
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text.encode("latin-1"))
    [defect] = defects(file.parent, "config")
    assert sentence in defect.sentence
    assert defect.file == "config.json"


@both_layouts
def test_config_field(write_tiny, layout):
    folder = write_tiny(layout)
    edit_json(folder / "config.json", lambda fields: fields.update(rope_truncate=True, qk_norm=1))
    found = defects(folder, "config")
    assert [defect.field for defect in found] == ["qk_norm", "rope_truncate"]
    with pytest.raises(
        DefectiveCheckpointError, match=r"config\.json: qk_norm .* \(and 1 more defect; see "
    ):
        open_checkpoint(folder)


@both_layouts
@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_file(write_tiny, layout, kept):
    file = write_tiny(layout) / MODEL
    contents = file.read_bytes()
    file.write_bytes(contents[:kept])
    [defect] = defects(file.parent, "file")
    assert defect.sentence.startswith(MODEL)
    assert "truncated" in defect.sentence
    if kept == -1:  # the error names the last tensor in the file
        assert defect.tensor in load_names(contents)
        assert "truncated by 1 bytes" in defect.sentence


def load_names(contents):
    length = struct.unpack("<Q", contents[:8])[0]
    return json.loads(contents[8 : 8 + length])


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda text: text[1:], "has a header that is not JSON"),
        (lambda text: text.replace('"BF16"', '"BF17"', 1), "unknown dtype BF17"),
        (lambda text: text.replace('"BF16"', '"F32"', 1), "wrong size for F32"),
        (lambda text: text.replace('"shape"', '"shapes"', 1), "malformed header entry"),
        (lambda text: text.replace('"shape":[', '"shape":[-1,', 1), "malformed shape or offset"),
        (lambda text: text.replace("[0,", "[2,", 1), "wrong size for"),
    ],
)
def test_header_that_cannot_be_trusted(write_tiny, edit, sentence):
    file = write_tiny() / MODEL
    rewrite_header(file, edit)
    [defect] = defects(file.parent, "file")
    assert defect.sentence.startswith(MODEL)
    assert sentence in defect.sentence


def test_header_with_a_gap(write_tiny):
    def shift(text):
        header = json.loads(text)
        name, last = max(
            ((n, e) for n, e in header.items() if n != "__metadata__"),
            key=lambda item: item[1]["data_offsets"],
        )
        header[name] = last | {"data_offsets": [offset + 2 for offset in last["data_offsets"]]}
        return json.dumps(header)

    file = write_tiny() / MODEL
    rewrite_header(file, shift)
    assert (
        "overlaps the tensor before it or leaves a gap" in defects(file.parent, "file")[0].sentence
    )


def test_bytes_after_the_last_tensor(write_tiny):
    file = write_tiny() / MODEL
    file.write_bytes(file.read_bytes() + bytes(10))
    assert "contains 10 bytes more" in defects(file.parent, "file")[0].sentence


def test_endless_header_is_not_read(write_tiny):
    file = write_tiny() / MODEL
    with file.open("r+b") as stream:
        stream.write(struct.pack("<Q", 200_000_000))
        stream.truncate(300_000_000)  # sparse
    assert "claims a header of 200,000,000 bytes" in defects(file.parent, "file")[0].sentence


@both_layouts
def test_missing_tensor(write_tiny, layout):
    folder = write_tiny(layout)
    replace_tensors(folder / MODEL, **{SINKS[layout]: None})
    [defect] = defects(folder, "missing")
    assert defect.sentence == f"tensor {SINKS[layout]} is missing from {MODEL}"
    assert (defect.file, defect.tensor) == (MODEL, SINKS[layout])


@both_layouts
def test_unknown_tensor(write_tiny, layout):
    folder = write_tiny(layout)
    replace_tensors(folder / MODEL, **{"evil\nname": torch.zeros(1)})
    [defect] = defects(folder, "unknown")
    assert "'evil\\nname'" in defect.sentence


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_wrong_dtype(write_tiny, layout, dtype):
    folder = write_tiny(layout)
    replace_tensors(folder / MODEL, **{SINKS[layout]: torch.zeros(4, dtype=dtype)})
    [defect] = defects(folder, "dtype")
    stored = {torch.float32: "F32", torch.float16: "F16"}[dtype]
    wanted = f"tensor {SINKS[layout]} in {MODEL} is {stored}, not BF16; `oss-lab convert` rounds it"
    assert defect.sentence == wanted


@both_layouts
def test_wrong_shape(write_tiny, layout):
    folder = write_tiny(layout)
    replace_tensors(
        folder / MODEL, **{BLOCKS[layout]: torch.zeros(4, 64, 16, 1, dtype=torch.uint8)}
    )
    [defect] = defects(folder, "shape")
    wanted = f"tensor {BLOCKS[layout]} in {MODEL} has shape [4, 64, 16, 1], not [4, 64, 1, 16]"
    assert defect.sentence == wanted


@both_layouts
@pytest.mark.parametrize("shard", [None, 40_000])
def test_nan_scales(write_tiny, layout, shard):
    folder = write_tiny(layout, max_shard_bytes=shard)
    [file] = [f for f in folder.glob("*.safetensors") if SCALES[layout] in load_file(f)]
    scales = load_file(file)[SCALES[layout]]
    scales[2, 3, 0] = scales[3, 63, 0] = 255
    replace_tensors(file, **{SCALES[layout]: scales})
    [defect] = defects(folder, "scale")
    assert defect.sentence == (
        f"tensor {SCALES[layout]} in {file.name} contains 2 NaN scale bytes (255), "
        f"the first at its byte {2 * 64 + 3}, index [2, 3, 0]"
    )
    # elsewhere 255 is valid data: in blocks and in BF16
    scales[scales == 255] = 0
    blocks = torch.full((4, 64, 1, 16), 255, dtype=torch.uint8)
    where = {SCALES[layout]: scales}
    if BLOCKS[layout] in load_file(file):
        where[BLOCKS[layout]] = blocks
    replace_tensors(file, **where)
    assert defects(folder) == []


@both_layouts
def test_tensor_in_two_files(write_tiny, layout):
    folder = write_tiny(layout)
    save_file({SINKS[layout]: torch.zeros(4).bfloat16()}, folder / "again.safetensors")
    [defect] = defects(folder, "duplicate")
    sentence = f"tensor {SINKS[layout]} is in again.safetensors and again in {MODEL}"
    assert defect.sentence == sentence


@both_layouts
def test_tensor_twice_in_one_header(write_tiny, layout):
    """A JSON reader keeps the last of two equal names, and so does safetensors."""
    file = write_tiny(layout) / MODEL
    other = SINKS[layout].replace("1", "0")
    rewrite_header(file, lambda text: text.replace(f'"{other}"', f'"{SINKS[layout]}"'))
    [defect] = defects(file.parent, "duplicate")
    assert defect.sentence == f"{MODEL}: tensor {SINKS[layout]} appears twice in its header"


@both_layouts
def test_shard_missing(write_tiny, layout):
    folder = write_tiny(layout, max_shard_bytes=40_000)
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    [defect] = defects(folder, "shard")
    assert defect.file == gone.name
    assert defect.sentence.startswith(f"{gone.name} is missing from the folder; ")


@both_layouts
def test_names_of_the_other_layout(write_tiny, layout):
    folder = write_tiny(layout)
    other = LAYOUTS[1 - LAYOUTS.index(layout)]
    (write_tiny(other, "other") / MODEL).replace(folder / MODEL)
    [defect] = defects(folder, "layout")
    assert "config.json is that of the" in defect.sentence


BAD_PLACES = [
    "../model.safetensors",
    "model.bin",
    "/etc/passwd",
    "a/b.safetensors",
    "..",
    "a\\b.safetensors",
    "c:d.safetensors",
    "",
    7,
]


@both_layouts
@pytest.mark.parametrize("place", BAD_PLACES)
def test_index_that_leaves_the_folder(write_tiny, layout, place):
    folder = write_tiny(layout)
    (folder.parent / MODEL).write_bytes((folder / MODEL).read_bytes())
    names = dict.fromkeys(load_file(folder / MODEL), MODEL)
    index = {"weight_map": names | {SINKS[layout]: place}}
    (folder / INDEX).write_text(json.dumps(index))
    [first] = defects(folder)
    assert (first.kind, first.file, first.tensor) == ("index", INDEX, SINKS[layout])
    assert f"in {json.dumps(place)}, not a .safetensors file of this folder" in first.sentence


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_that_cannot_be_read(write_tiny, text):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    (folder / INDEX).write_text(text)
    [defect] = defects(folder, "index")
    assert defect.sentence.startswith(INDEX)


def test_index_names_a_tensor_twice(write_tiny):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(
        text.replace('"weight_map": {', '"weight_map": {"lm_head.weight": "", ')
    )
    [defect] = defects(folder, "index")
    assert "names lm_head.weight twice" in defect.sentence


def test_index_and_shards_disagree(write_tiny):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    first, *_, last = sorted(set(places.values()))
    assert places["lm_head.weight"] == first

    def edit(index):
        index["weight_map"]["lm_head.weight"] = last
        del index["weight_map"]["model.norm.weight"]
        index["weight_map"]["extra"] = first

    edit_json(folder / INDEX, edit)
    save_file({"more": torch.zeros(1)}, folder / "more.safetensors")
    sentences = [defect.sentence for defect in defects(folder)]
    assert sentences == [
        f"more.safetensors is not listed in {INDEX}",
        f"{INDEX} places lm_head.weight in {last}, but it is in {first}",
        f"{INDEX} places extra in {first}, which does not contain it",
        f"tensor model.norm.weight in {first} is not listed in {INDEX}",
        "tensor more in more.safetensors does not belong to a gpt-oss model",
    ]


def test_all_defects_are_listed_in_order(write_tiny):
    folder = write_tiny("huggingface")
    replace_tensors(
        folder / MODEL,
        **{
            SCALES["huggingface"]: torch.full((4, 64, 1), 255, dtype=torch.uint8),
            SINKS["huggingface"]: torch.zeros(5),
            "model.norm.weight": None,
            "zebra": torch.zeros(1),
            "ant": torch.zeros(1),
        },
    )
    found = defects(folder)
    kinds = ["missing", "unknown", "unknown", "dtype", "shape", "scale"]
    assert [defect.kind for defect in found] == kinds
    assert [defect.tensor for defect in found[1:3]] == ["ant", "zebra"]
    with pytest.raises(DefectiveCheckpointError) as caught:
        open_checkpoint(folder)
    assert list(caught.value.defects) == found
    assert (
        str(caught.value) == f"{found[0].sentence} (and 5 more defects; see oss-lab inspect --json)"
    )


def test_hub_cache_links_are_followed(write_tiny):
    """huggingface_hub's snapshots are links to blobs outside the folder."""
    folder = write_tiny("huggingface")
    blob = folder.parent / "blob"
    (folder / MODEL).rename(blob)
    try:
        (folder / MODEL).symlink_to(blob)
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    assert defects(folder) == []
    assert len(dict(open_checkpoint(folder).tensors())) == 33


def test_an_absurd_configuration_needs_no_memory(write_tiny, tiny_config):
    folder = write_tiny()
    edit_json(folder / "config.json", lambda fields: fields.update(num_hidden_layers=10**9))
    [defect] = defects(folder, "config")
    assert defect.field == "num_hidden_layers"
    assert len(list(tensor_table(tiny_config))) == 33


def test_torch_is_not_imported(write_tiny):
    code = (
        "import sys; from oss_lab.checkpoint.read import open_checkpoint; "
        f"open_checkpoint({str(write_tiny())!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
