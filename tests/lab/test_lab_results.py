"""The stored results of experiments: what another seed replaces."""

from oss_lab.course.labs import results
from oss_lab.course.labs.results import load_result, save_result


def test_another_seed_does_not_replace_what_the_lesson_shows(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for seed in (0, 3):
        save_result("17_finetune", {"found": seed}, seed=seed, seconds=90.0, threads=1)
    shown = load_result("17_finetune")
    assert (shown["seed"], shown["found"], shown["cpu_minutes"]) == (0, 0, 1.5)
    assert len(list(tmp_path.iterdir())) == 2
