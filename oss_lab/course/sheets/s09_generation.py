"""Exercises of 09_generation: the sampler, the loop with a cache, and the answer of a cut reply."""

from collections.abc import Callable, Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet
from oss_lab.engine.sampling import RandomStream, Sampling


def my_sample(logits, samplings, draws):
    """Choose the next token of each row.

    logits: [row vocab]. samplings: for each row, an object with the fields temperature, top_k,
    top_p and min_p; top_k is None if all tokens are kept. draws: for each row an object whose
    `uniform()` returns a random number from 0 to 1. Put the kept tokens side by side, most likely
    first, each as wide as its probability: the number points at the chosen one.
    Returns a list of ids, one per row.
    """
    ids = []
    for row, how, draw in zip(logits, samplings, draws, strict=True):
        if how.temperature == 0:
            ids.append(int(row.argmax()))
            continue
        p, order = (row.double() / how.temperature).softmax(-1).sort(descending=True, stable=True)
        p = p[: how.top_k] / p[: how.top_k].sum()
        before = p.cumsum(0) - p
        p = p * (before < how.top_p) * (p >= how.min_p * p[0])
        number = draw.uniform() * p.sum()
        ids.append(int(order[torch.searchsorted(p.cumsum(0), number, right=True)]))
    return ids


def sample_by_steps(
    logits,
    samplings,
    draws,
    *,
    scale=lambda row, temperature: row / temperature,
    keep_p=lambda p, top_p: p.cumsum(0) - p < top_p,
    keep_min=lambda p, min_p: p >= min_p * p[0],
    after=lambda p, temperature: p,
):
    """`my_sample` with steps that can be replaced."""
    ids = []
    for row, how, draw in zip(logits, samplings, draws, strict=True):
        if how.temperature == 0:
            ids.append(int(row.argmax()))
            continue
        p, order = scale(row.double(), how.temperature).softmax(-1).sort(descending=True)
        p = p[: how.top_k] / p[: how.top_k].sum()
        p = after(p * keep_p(p, how.top_p) * keep_min(p, how.min_p), how.temperature)
        number = draw.uniform() * p.sum()
        ids.append(int(order[torch.searchsorted(p.cumsum(0), number, right=True)]))
    return ids


def temperature_multiplies(logits, samplings, draws):
    """Your temperature works the wrong way round. Divide the logits by it: a temperature above 1
    makes the distribution flatter, one below 1 sharper.
    """
    return sample_by_steps(logits, samplings, draws, scale=lambda row, t: row * t)


def temperature_ignored(logits, samplings, draws):
    """You do not use the temperature. Divide the logits by it before the softmax."""
    return sample_by_steps(logits, samplings, draws, scale=lambda row, t: row)


def filtered_before_temperature(logits, samplings, draws):
    """You filter the distribution at temperature 1. Divide by the temperature first: top-p and
    min-p apply to the probabilities that you draw from.
    """
    return sample_by_steps(
        logits, samplings, draws, scale=lambda row, t: row, after=lambda p, t: p ** (1 / t)
    )


def top_p_stops_too_early(logits, samplings, draws):
    """Your top-p drops the token that reaches the limit. Keep it, too: what is kept must have at
    least the probability top_p, and at least one token must remain.
    """

    def keep(p, top_p):
        kept = p.cumsum(0) <= top_p
        kept[0] = True
        return kept

    return sample_by_steps(logits, samplings, draws, keep_p=keep)


def top_p_ignored(logits, samplings, draws):
    """You do not use `top_p`. Keep the fewest most likely tokens that together reach it."""
    return sample_by_steps(logits, samplings, draws, keep_p=lambda p, top_p: p >= 0)


def min_p_absolute(logits, samplings, draws):
    """Your min-p compares with a fixed probability. It is a fraction of the most likely token's
    probability, so it keeps more tokens when the model is unsure.
    """
    return sample_by_steps(logits, samplings, draws, keep_min=lambda p, m: p >= min(m, p[0]))


def always_the_best(logits, samplings, draws):
    """You always take the most likely token. That is right at temperature 0 only; otherwise a
    random number from `draws` decides.
    """
    return logits.argmax(-1).tolist()


def tokens_in_order_of_ids(logits, samplings, draws):
    """You put the tokens side by side by their ids. Put the most likely one first, or a random
    number points at another token than in the library.
    """
    ids = []
    for row, how, draw in zip(logits, samplings, draws, strict=True):
        if how.temperature == 0:
            ids.append(int(row.argmax()))
            continue
        p, order = (row.double() / how.temperature).softmax(-1).sort(descending=True, stable=True)
        p = p * (torch.arange(len(p)) < (how.top_k or len(p)))
        p = p / p.sum()
        p = p * (p.cumsum(0) - p < how.top_p) * (p >= how.min_p * p[0])
        by_id = torch.zeros_like(p).scatter(0, order, p)
        number = draw.uniform() * p.sum()
        ids.append(int(torch.searchsorted(by_id.cumsum(0), number, right=True)))
    return ids


def one_draw_for_all(logits, samplings, draws):
    """All your rows use the first row's random numbers. Each row has its own stream: a reply must
    not depend on the other rows of its batch.
    """
    return sample_by_steps(logits, samplings, [draws[0]] * len(draws))


def sample_cases() -> Iterator[tuple]:
    """Rows of 12 logits under each setting alone, all at once, and mixed; some ids are barred."""
    settings = [
        Sampling(temperature=0),
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=3),
        Sampling(top_k=3),
        Sampling(top_p=0.6),
        Sampling(min_p=0.4),
        Sampling(temperature=3, top_p=0.6),
        Sampling(temperature=3, top_k=8, top_p=0.7, min_p=0.3),
    ]
    for n, how in enumerate(settings):
        logits = 2 * torch.randn(24, 12, generator=torch.Generator().manual_seed(n))
        logits[:, n] = -torch.inf
        yield logits, [how] * 24, [RandomStream(n, row) for row in range(24)]
    logits = 2 * torch.randn(9, 12, generator=torch.Generator().manual_seed(9))
    yield logits, settings, [RandomStream(9, row) for row in range(9)]


def my_generate(read, prompt, stops, max_tokens):
    """Generate greedily with a cache.

    read(ids, start): the model. It computes the tokens `ids`, which are at the positions start,
    start + 1, ..., adds them to its cache, and returns the scores of the token that follows them,
    as a list. prompt: token ids. stops: ids that end the reply, and are part of it. max_tokens: the
    reply's limit. Returns the reply as a list of ids.
    """
    reply = []
    scores = read(prompt, 0)
    while True:
        reply.append(scores.index(max(scores)))
        if reply[-1] in stops or len(reply) == max_tokens:
            return reply
        scores = read(reply[-1:], len(prompt) + len(reply) - 1)


def generate_by_steps(read, prompt, stops, max_tokens, place, piece=lambda reply: reply[-1:]):
    """`my_generate`; `place` gives the position of a pass, and `piece` the tokens that it reads."""
    reply = []
    scores = read(prompt, 0)
    while True:
        reply.append(scores.index(max(scores)))
        if reply[-1] in stops or len(reply) == max_tokens:
            return reply
        scores = read(piece(reply), place(reply))


def position_restarted(read, prompt, stops, max_tokens):
    """Your positions start again at 0 after the prompt. A new token has the position after the last
    cached one, or the model takes it for the first word of the text.
    """
    return generate_by_steps(read, prompt, stops, max_tokens, lambda reply: len(reply) - 1)


def position_one_too_far(read, prompt, stops, max_tokens):
    """Your positions are one too large after the prompt. The first token of the reply has the
    position `len(prompt)`, because positions count from 0.
    """
    return generate_by_steps(
        read, prompt, stops, max_tokens, lambda reply: len(prompt) + len(reply)
    )


def position_stuck(read, prompt, stops, max_tokens):
    """Your position does not grow: every token of the reply gets the position of the first."""
    return generate_by_steps(read, prompt, stops, max_tokens, lambda reply: len(prompt))


def reply_read_again(read, prompt, stops, max_tokens):
    """You read the whole reply in every pass. The cache holds its earlier tokens already, so now it
    has them several times: read only the newest one.
    """
    return generate_by_steps(
        read, prompt, stops, max_tokens, lambda reply: len(prompt), lambda reply: reply
    )


def prompt_end_read_twice(read, prompt, stops, max_tokens):
    """You read the last token of the prompt twice. The prefill has read it, and its scores choose
    the first token of the reply.
    """
    reply, new = [], prompt[-1]
    read(prompt, 0)
    while len(reply) < max_tokens:
        scores = read([new], len(prompt) + len(reply))
        new = scores.index(max(scores))
        reply.append(new)
        if new in stops:
            break
    return reply


def stop_token_dropped(read, prompt, stops, max_tokens):
    """Your reply lacks its stop token. It is a part of the reply: without it, nobody can tell a
    finished reply from a cut one.
    """
    reply = my_generate(read, prompt, stops, max_tokens)
    return reply[:-1] if reply[-1] in stops else reply


def stops_ignored(read, prompt, stops, max_tokens):
    """You do not stop at the stop tokens, so the model continues after its turn."""
    return my_generate(read, prompt, (), max_tokens)


def one_token_too_many(read, prompt, stops, max_tokens):
    """Your reply may be one token longer than `max_tokens`."""
    return my_generate(read, prompt, stops, max_tokens + 1)


class ToyModel:
    """A model of 23 tokens whose scores depend on every cached token and its position."""

    def __init__(self, seed: int) -> None:
        self.cache: list[tuple[int, int]] = []
        self.seed = seed

    def __call__(self, ids: list[int], start: int) -> list[int]:
        self.cache += [(start + n, id) for n, id in enumerate(ids)]
        total = sum((position + 3) * (id + 7) ** 2 for position, id in self.cache)
        return [(total * (n + 11) + self.seed * n * n) % 101 for n in range(23)]


def generate_cases() -> Iterator[tuple[Callable, list[int], tuple[int, ...], int]]:
    """Replies that end at a stop token, and replies that are cut."""
    for seed in range(1, 9):
        prompt = [(seed * n + 5) % 23 for n in range(4 + seed)]
        yield ToyModel(seed), prompt, (seed, 22 - seed), 12
        yield ToyModel(seed), list(prompt), (), 1 + seed % 3


def my_answer(tokens):
    """The text of the `final` channel of a reply, and whether the reply is complete.

    tokens: texts. The first follows `<|start|>assistant`. A header is `<|channel|>`, the channel's
    name and `<|message|>`; then comes the text, up to `<|end|>` or the stop token `<|return|>`.
    The next message begins with `<|start|>`, `assistant`. The reply may be cut anywhere.
    Returns (text, is_complete); the text is "" if there is no final message.
    """
    text, channel, is_content = "", "", False
    for n, token in enumerate(tokens):
        if token == "<|message|>":
            channel, is_content = tokens[n - 1], True
        elif token in ("<|end|>", "<|return|>"):
            is_content = False
        elif is_content and channel == "final":
            text += token
    return text, tokens[-1:] == ["<|return|>"]


def header_shown(tokens):
    """You show words of a header. Text begins after `<|message|>`; what comes before it, such as
    the name of a channel, is not an answer, also if the reply is cut there.
    """
    text, channel = "", ""
    for n, token in enumerate(tokens):
        if token == "<|channel|>":
            channel = "".join(tokens[n + 1 : n + 2])
        elif token in ("<|end|>", "<|return|>"):
            channel = ""
        elif channel == "final" and not token.startswith("<|"):
            text += token
    return text, tokens[-1:] == ["<|return|>"]


def stops_at_end(tokens):
    """You stop at the first `<|end|>`. It ends a message, not the turn: the answer comes after the
    message with the thinking.
    """
    cut = tokens[: tokens.index("<|end|>")] if "<|end|>" in tokens else tokens
    return my_answer(cut)[0], tokens[-1:] == ["<|return|>"]


def analysis_shown(tokens):
    """You show the thinking. Only the text of the channel `final` is the answer."""
    text, is_content = "", False
    for token in tokens:
        if token in ("<|message|>", "<|end|>", "<|return|>"):
            is_content = token == "<|message|>"
        elif is_content:
            text += token
    return text, tokens[-1:] == ["<|return|>"]


def cut_answer_lost(tokens):
    """You drop an answer that was cut. Its text was written, so return it, and say that the reply
    is not complete.
    """
    text, is_complete = my_answer(tokens)
    return (text if is_complete else ""), is_complete


def answer_means_complete(tokens):
    """You call a reply complete because it has an answer. The answer may be cut in the middle; only
    the stop token shows that the model has finished.
    """
    text, _ = my_answer(tokens)
    return text, bool(text)


def any_end_is_complete(tokens):
    """You call a reply complete if it ends with `<|end|>`. That token ends the thinking, and the
    turn continues.
    """
    text, _ = my_answer(tokens)
    return text, tokens[-1:] in (["<|return|>"], ["<|end|>"])


def name_searched_in_text(tokens):
    """You search for the word `final` in the text. Thinking can contain that word, too: the
    channel is only what a header says.
    """
    joined = "".join(tokens)
    place = joined.find("final")
    text = joined[place:].removeprefix("final").removeprefix("<|message|>").partition("<|")[0]
    return (text if place >= 0 else ""), tokens[-1:] == ["<|return|>"]


def answer_cases() -> Iterator[tuple[list[str]]]:
    """One reply cut after each of its tokens or before all, one without thinking, and one that says
    “final” in it.
    """
    thinking = ["<|channel|>", "analysis", "<|message|>", "7", "*", "2", "=", "14", "<|end|>"]
    answer = ["<|channel|>", "final", "<|message|>", "2", "15", "14", "<|return|>"]
    whole = [*thinking, "<|start|>", "assistant", *answer]
    for length in range(len(whole) + 1):
        yield (whole[:length],)
    yield (answer,)
    yield ([*thinking[:3], "a ", "final", " check", "<|end|>", *whole[len(thinking) :]],)


SHEET = Sheet(
    lesson="09_generation",
    title="Exercises: generation",
    text="Read [09_generation](../09_generation.ipynb) first.",
    exercises=(
        Exercise(
            title="The sampler",
            text=(
                "Choose each row's next token: temperature, then top-k, top-p and min-p, then one"
                " random number. At temperature 0 take the most likely token, without a random"
                " number."
            ),
            solution=my_sample,
            cases=sample_cases,
            misconceptions=(
                temperature_multiplies,
                temperature_ignored,
                filtered_before_temperature,
                top_p_stops_too_early,
                top_p_ignored,
                min_p_absolute,
                always_the_best,
                one_draw_for_all,
                tokens_in_order_of_ids,
            ),
            hints=(
                "Work on one row at a time. Sort its probabilities, most likely first: then every"
                " filter keeps a beginning of the list.",
                "A row is [vocab]. After `sort`, `p` and `order` are [vocab], and `order[n]` is the"
                " id of the n-th token. What top-p looks at is the sum before each token:"
                " `p.cumsum(0) - p`.",
                "p = softmax(row / temperature), sorted; cut to top_k and rescale; set p to 0 where"
                " the sum before is top_p or more, and where p is below min_p times the first;"
                " multiply the random number by what is left, and find its place in the"
                " cumulative sum with `torch.searchsorted(..., right=True)`.",
            ),
            minutes=15,
            difficulty=3,
            part="sample",
        ),
        Exercise(
            title="The loop with a cache",
            text=(
                "Write the loop: read the prompt once, then one token per pass, at the right"
                " position. The model is any function `read`, here a toy that notices every token"
                " read twice or at a wrong position."
            ),
            solution=my_generate,
            cases=generate_cases,
            misconceptions=(
                position_restarted,
                position_one_too_far,
                position_stuck,
                reply_read_again,
                prompt_end_read_twice,
                stop_token_dropped,
                stops_ignored,
                one_token_too_many,
            ),
            hints=(
                "Which scores choose the first token of the reply? Which tokens are already in the"
                " cache when you choose the second?",
                "`read(prompt, 0)` returns the scores for the first token; after that, `ids` is a"
                " list of one id.",
                "Append the best id; return if it is a stop or the reply is full; otherwise read"
                " it at the position len(prompt) + len(reply) - 1, and repeat.",
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="The answer of a cut reply",
            text=(
                "A reply may end anywhere, also in a header. Return the text of `final`, and"
                " whether the reply is complete."
            ),
            solution=my_answer,
            cases=answer_cases,
            misconceptions=(
                header_shown,
                stops_at_end,
                analysis_shown,
                cut_answer_lost,
                answer_means_complete,
                any_end_is_complete,
                name_searched_in_text,
            ),
            hints=(
                "Go through the tokens, and remember two things: the channel, and whether you are"
                " in the text of a message or outside.",
                "The channel's name is the token before `<|message|>`.",
                "`<|message|>` begins text, `<|end|>` and `<|return|>` end it; add the tokens of"
                " text on `final`. The reply is complete if its last token is `<|return|>`.",
            ),
            minutes=10,
            difficulty=2,
        ),
    ),
)
