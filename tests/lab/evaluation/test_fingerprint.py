"""What distinguishes one evaluation from another: its questions, settings and checkpoint."""

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
from oss_lab.evaluation.grade import WrittenAnswer
from oss_lab.evaluation.journal import build_fingerprint, default_path
from oss_lab.nano import suite


def test_a_fingerprint_depends_on_everything_that_decides_the_outcomes(write_tiny, make_questions):
    checkpoint = open_checkpoint(write_tiny())
    questions = make_questions(3)

    def fingerprint(questions=questions, sampling=GREEDY, max_tokens=8, seed=1):
        return build_fingerprint(checkpoint, questions, sampling, max_tokens, seed)

    assert json.loads(json.dumps(fingerprint())) == fingerprint()
    assert fingerprint(make_questions(3)) == fingerprint()
    assert fingerprint(seed=2) == fingerprint()  # greedy decoding uses no seed
    hot = Sampling()
    other = [
        fingerprint(make_questions(2)),
        fingerprint(make_questions(3)[::-1]),
        fingerprint([*make_questions(2), replace(questions[2], answer=WrittenAnswer("x"))]),
        fingerprint(make_questions(3, developer="x")),
        fingerprint(max_tokens=9),
        fingerprint(sampling=hot),
        fingerprint(sampling=hot, seed=2),
    ]
    assert len({default_path(each) for each in [fingerprint(), *other]}) == 8


def test_other_weights_give_another_fingerprint(write_tiny, monkeypatch):
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


def test_a_large_file_is_hashed_at_its_header_and_at_blocks_throughout(tmp_path, monkeypatch):
    """Fine-tunes of one model have equal headers: only the data distinguishes them."""
    monkeypatch.setattr("oss_lab.checkpoint.digest.HASHED_WHOLE", 0)
    monkeypatch.setattr("oss_lab.checkpoint.digest.BLOCK", 4)
    file, header = tmp_path / "weights", (8).to_bytes(8, "little") + b"a header"
    stride = 10
    size = len(header) + (BLOCKS - 1) * stride + 4
    contents = bytearray(header.ljust(size, b"\0"))

    def is_changed(place):
        file.write_bytes(contents)
        before = file_digest(file)
        file.write_bytes(contents[:place] + b"x" + contents[place + 1 :])
        return file_digest(file) != before

    first = len(header)
    assert all(map(is_changed, [8, first, first + 3, first + 100 * stride, size - 4, size - 1]))
    assert not is_changed(first + 4)  # between the hashed blocks, as the docstring says


def test_another_grader_makes_another_evaluation(write_tiny, make_questions, tmp_path, monkeypatch):
    """A journal keeps the grades, so grades of an older grader must not be reused."""
    checkpoint, questions = (
        open_checkpoint(write_tiny()),
        [*make_questions(1), *suite.draw_questions(1, 1)[:1]],
    )
    for package in ("oss_lab.evaluation", "oss_lab.nano.tasks"):
        shutil.copytree(str(resources.files(package)), tmp_path / package)

    def fingerprint():
        return build_fingerprint(checkpoint, questions, GREEDY, 8, 1)

    before = fingerprint()
    monkeypatch.setattr("oss_lab.evaluation.journal.resources.files", lambda name: tmp_path / name)
    assert fingerprint() == before
    for file in ("oss_lab.evaluation/grade.py", "oss_lab.nano.tasks/problem.py"):
        with (tmp_path / file).open("a", encoding="utf-8") as source:
            source.write("# changed\n")
        assert default_path(fingerprint()) != default_path(before)
        before = fingerprint()


def test_built_in_questions_are_the_same_in_another_process():
    code = "from oss_lab.nano import suite; print(suite.draw_questions(2, 1))"
    command = [sys.executable, "-c", code]
    other = os.environ | {"PYTHONHASHSEED": "1"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=other).stdout
    assert printed == f"{suite.draw_questions(2, 1)}\n"
