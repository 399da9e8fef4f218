"""What tells one evaluation from another: its questions, settings and checkpoint."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import resources

from oss_lab.checkpoint.digest import BLOCKS, checkpoint_digest, file_digest
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.evaluation.grade import Written
from oss_lab.evaluation.journal import default_place, fingerprint
from oss_lab.nano import suite


def test_a_fingerprint_tells_what_decides_the_outcomes(write_tiny, asked):
    checkpoint = open_checkpoint(write_tiny())
    questions = asked(3)

    def found(questions=questions, sampling=GREEDY, max_tokens=8, seed=1):
        return fingerprint(checkpoint, questions, sampling, max_tokens, seed)

    assert json.loads(json.dumps(found())) == found()
    assert found(asked(3)) == found()
    assert found(seed=2) == found()  # nothing is drawn
    hot = Sampling()
    other = [
        found(asked(2)),
        found(asked(3)[::-1]),
        found([*asked(2), replace(questions[2], answer=Written("x"))]),
        found(asked(3, developer="x")),
        found(max_tokens=9),
        found(sampling=hot),
        found(sampling=hot, seed=2),
    ]
    assert len({default_place(each) for each in [found(), *other]}) == 8


def test_other_weights_are_another_checkpoint(write_tiny, monkeypatch):
    folder = write_tiny()
    before = checkpoint_digest(open_checkpoint(folder))
    assert checkpoint_digest(open_checkpoint(folder)) == before
    (folder / "notes.txt").write_text("no part of it")
    assert checkpoint_digest(open_checkpoint(folder)) == before
    (file,) = folder.glob("*.safetensors")
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    assert checkpoint_digest(open_checkpoint(folder)) != before
    monkeypatch.setattr("oss_lab.checkpoint.digest.HASHED_WHOLE", 0)
    large = checkpoint_digest(open_checkpoint(folder))
    contents[-1] ^= 1
    file.write_bytes(contents)
    assert checkpoint_digest(open_checkpoint(folder)) != large


def test_a_large_file_is_hashed_at_its_header_and_at_blocks_all_over(tmp_path, monkeypatch):
    """Fine-tunes of one model have the same shards: only the data tells them apart."""
    monkeypatch.setattr("oss_lab.checkpoint.digest.HASHED_WHOLE", 0)
    monkeypatch.setattr("oss_lab.checkpoint.digest.BLOCK", 4)
    file, header = tmp_path / "weights", (8).to_bytes(8, "little") + b"a header"
    stride = 10
    size = len(header) + (BLOCKS - 1) * stride + 4
    contents = bytearray(header.ljust(size, b"\0"))

    def changed(place):
        file.write_bytes(contents)
        before = file_digest(file)
        file.write_bytes(contents[:place] + b"x" + contents[place + 1 :])
        return file_digest(file) != before

    first = len(header)
    assert all(map(changed, [8, first, first + 3, first + 100 * stride, size - 4, size - 1]))
    assert not changed(first + 4)  # between the blocks, as the docstring says


def test_another_grader_is_another_evaluation(write_tiny, asked, tmp_path, monkeypatch):
    """A journal keeps the marks, so that those of the old grader must not be taken up."""
    checkpoint, questions = open_checkpoint(write_tiny()), [*asked(1), *suite.questions(1, 1)[:1]]
    for package in ("oss_lab.evaluation", "oss_lab.nano.tasks"):
        shutil.copytree(str(resources.files(package)), tmp_path / package)

    def found():
        return fingerprint(checkpoint, questions, GREEDY, 8, 1)

    before = found()
    monkeypatch.setattr("oss_lab.evaluation.journal.resources.files", lambda name: tmp_path / name)
    assert found() == before
    for file in ("oss_lab.evaluation/grade.py", "oss_lab.nano.tasks/problem.py"):
        with (tmp_path / file).open("a", encoding="utf-8") as source:
            source.write("# changed\n")
        assert default_place(found()) != default_place(before)
        before = found()


def test_built_in_questions_are_told_alike_in_another_process():
    code = "from oss_lab.nano import suite; print(suite.questions(2, 1))"
    command = [sys.executable, "-c", code]
    other = os.environ | {"PYTHONHASHSEED": "1"}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=other).stdout
    assert told == f"{suite.questions(2, 1)}\n"
