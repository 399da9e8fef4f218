"""Run the experiment of a lesson, and store its result with the course.

The lessons show the result with seed 0. Another seed replaces nothing.

python -m oss_lab.course.labs 18_effort --seed 0
"""

import argparse
import time
from importlib import import_module

import torch

from oss_lab.course.labs.results import save_result

LESSONS = ("17_finetune", "18_effort", "19_hierarchy", "20_monitor", "21_worst_case")


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_lab.course.labs", description=__doc__)
    parser.add_argument("lesson", choices=LESSONS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    name = given.lesson.partition("_")[2]
    experiment = import_module(f"oss_lab.course.labs.{name}.measure")
    began = time.process_time()
    measured = experiment.measure(given.seed)
    seconds, threads = time.process_time() - began, torch.get_num_threads()
    path = save_result(given.lesson, measured, seed=given.seed, seconds=seconds, threads=threads)
    print(f"wrote {path} after {seconds / 60:.1f} minutes of processor time")


if __name__ == "__main__":
    main()
