"""A decode step on a CPU as one compiled call. README.md lists the files in reading order."""
