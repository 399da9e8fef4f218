"""How fast the model is on a CPU, and how much memory it needs.

`python -m oss_lab.bench` measures tasks, beside other programs with `--peers`.
`python -m oss_lab.bench.overhead` measures what each selection of points costs to record.

tasks/          what is measured, one file per task
sides.py        ours and transformers, on the same weights
llama.py        llama.cpp, by its program llama-bench
peers.py        which peers are available, and why others are not
child.py        a separate process, for the seconds to load and the peak of memory
peak.py         the small process that starts it, so that the peak is its own
measure.py      takes turns, takes medians, and measures how busy other programs were
formula.py      the bytes that a decode step must read
setting.py      the model and the sides of a run
report.py       results as a table, in a terminal or in Markdown
pages.py        the newest committed results in README.md and RESULTS.md
command.py      options, the checkpoint, the JSON
overhead.py     the cost of recording (`recording.py`)
kernel_page.py  results of the kernel benchmarks as an HTML page
"""
