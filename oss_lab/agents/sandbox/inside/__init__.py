"""The program inside the sandbox. It imports nothing of oss_lab, which it cannot read.

- `worker`: the Python process that runs the model's code and keeps its variables
- `lock`: what the process gives up before the first line of that code
- `filter`, `syscalls`: the system calls that are left, as a seccomp program
- `streams`: sys.stdout and sys.stderr, with a limit
- `data_paths`: /mnt/data, where that folder is only a name
"""
