"""`oss-lab doctor`: check in a minute whether this machine is ready for the course.

Every line is `ok` or `problem`; a problem says what to do, and makes the exit status 1. Nothing is
downloaded or changed.
"""

from typing import Annotated

from typer import Option


def run(
    seconds: Annotated[
        float, Option(help="how long nano's answer may take before that is a problem", min=0.1)
    ] = 10.0,
) -> int:
    """Check whether this machine is ready for the course."""
    from oss_lab.course.doctor import examine_machine

    is_ready = True
    for finding in examine_machine(seconds):
        print(finding, flush=True)
        is_ready &= finding.is_ok
    print("ready for the course" if is_ready else "not ready: see the problems above")
    return 0 if is_ready else 1
