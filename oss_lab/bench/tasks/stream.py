"""`Lab.stream`: a chat as a user sees it, with the chat format, events and log-probabilities.

Measured if the checkpoint has a vocabulary.
"""

import time
from collections.abc import Iterator

from oss_lab.bench.measure import OURS, Result, summarize, take_turns
from oss_lab.bench.setting import Setting
from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT
from oss_lab.engine.sampling import GREEDY
from oss_lab.lab import Lab
from oss_lab.tokenizer import VOCABULARIES, load_vocabulary

NEW = 100
QUESTION = "What is 347 * 62?"


def measure(setting: Setting) -> Iterator[Result]:
    vocabulary = VOCABULARIES.get(setting.checkpoint.config.vocab_size)
    if vocabulary is None:
        return
    tokenizer = load_vocabulary(vocabulary, checkpoint=setting.checkpoint.folder)
    lab = Lab(
        setting.engines.reference.model, tokenizer, GREEDY, DEFAULT_EFFORT[vocabulary],
        setting.checkpoint, kernels=setting.kernels, is_auto=True,
    )  # fmt: skip
    counts = list[int]()

    def run() -> float:
        began = time.perf_counter()
        stream = lab.stream(QUESTION, effort="high", max_tokens=NEW)
        counts.append(len(stream.read().ids))
        return (time.perf_counter() - began) / counts[-1]

    runs = take_turns({OURS: run}, setting.repeats, "stream")[OURS]
    yield summarize(f"Lab.stream, {counts[-1]} tokens", OURS, runs, tokens=1)
