"""Runs a command, and prints as JSON what it wrote, how long it took and its peak of memory.

Linux starts the peak of a new process at that of the process which created it. The benchmark has
held weights, so it creates this small process, which imports nothing large, and this one creates
the process to measure.
"""

import json
import resource
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    found = {"status": done.returncode, "out": done.stdout, "error": done.stderr}
    print(json.dumps({**found, "seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1:])
