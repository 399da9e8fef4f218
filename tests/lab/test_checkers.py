"""The checkers refuse answers that are right only on the cases one thinks of first.

None of these is a misconception of a sheet: each is the solution with one small change, such as a
constant in place of an argument, or one that shows only in a batch or with large numbers.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from oss_lab.course.exercise import is_close, judge
from oss_lab.course.exercises import list_exercises
from oss_lab.harmony import Message

EXERCISES = list_exercises()


def solve(name: str, *arguments: Any) -> Any:
    return EXERCISES[name].solution(*arguments)


def change(message: Message, **changed: Any) -> Message:
    fields = {key: getattr(message, key) for key in ("channel", "recipient", "content_type")}
    fields |= {"name": message.author.name, "content": message.text} | changed
    return Message.of(message.role, **fields)


def missing_channel_is_final(ids, encoding):
    messages = solve("my_parse", ids, encoding)
    return [change(each, channel=each.channel or "final") for each in messages]


def recipient_kept_for_the_next_message(ids, encoding):
    messages, last = [], None
    for each in solve("my_parse", ids, encoding):
        last = each.recipient or last
        messages.append(change(each, recipient=last))
    return messages


def parse_and_strip(ids, encoding):
    return [change(each, content=each.text.strip()) for each in solve("my_parse", ids, encoding)]


def only_json_is_a_call(message, encoding):
    is_call = message.role == "assistant" and message.content_type
    end = encoding.encode_single_token("<|call|>" if is_call else "<|end|>")
    return [*solve("my_render", message, encoding)[:-1], end]


def order_instead_of_positions(query_positions, key_positions, window):
    count, seq = key_positions.shape[1], query_positions.shape[1]
    back = torch.arange(count - seq, count)[:, None] - torch.arange(count)
    visible = (back >= 0) & (key_positions >= 0)[:, None]
    return visible if window is None else visible & (back < window)


def first_row_for_all(query_positions, key_positions, window):
    first = solve("my_visible_keys", query_positions[:1], key_positions[:1], window)
    return first.expand(len(query_positions), -1, -1)


def largest_of_the_keys_only(scores, sinks):
    largest = scores.amax(-1)
    largest = torch.where(largest.isinf(), 0.0, largest)
    powers, own = (scores - largest[..., None]).exp(), (sinks[:, :, None] - largest).exp()
    total = powers.sum(-1) + own
    return powers / total[..., None], own / total


def powers_of_the_router_overflow(router_logits, slots):
    chosen, ids = router_logits.topk(slots)
    powers = chosen.exp()
    return ids, powers / powers.sum(-1, keepdim=True)


def word_final_in_the_text(tokens):
    rest = tokens[tokens.index("final") + 2 :] if "final" in tokens else []
    is_complete = tokens[-1:] == ["<|return|>"]
    return "".join(rest[: len(rest) - is_complete]), is_complete


def empty_texts_left_out(chat):
    return [each for each in solve("my_client_messages", chat) if each.text]


def logarithm_of_the_softmax(logits, ids, learned):
    surprise = -logits.softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0].log()
    return surprise[learned[1:]].mean()


def quotient_of_softmaxes(ours, theirs):
    p, q = ours.softmax(-1), theirs.softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1).mean()
    return float((ours - theirs).abs().max()), float(kl)


def most_memory_in_all(models, gigabytes, tokens):
    sizes = {name: weights + tokens * each for name, (weights, each, _) in models.items()}
    fit = [n for n, size in sizes.items() if size <= gigabytes * 10**9 and tokens <= models[n][2]]
    return max(fit, key=sizes.__getitem__, default=None)


def masked_until_the_end(tokens):
    places = solve("my_masked_places", tokens)
    return [any(places[: n + 1]) for n in range(len(tokens))]


def object_anywhere_in_the_text(stop, answer, expected):
    return solve("my_grade", stop, answer[: answer.rfind("}") + 1], expected)


def channels_without_white_space(chunks):
    return {name: text.strip() for name, text in solve("my_channels", chunks).items()}


WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("my_encode", lambda text, *rest: solve("my_encode", text.rstrip(), *rest)),
    ("my_encode", lambda text, *rest: solve("my_encode", text.lower(), *rest)),
    ("my_render", only_json_is_a_call),
    ("my_parse", missing_channel_is_final),
    ("my_parse", recipient_kept_for_the_next_message),
    ("my_parse", parse_and_strip),
    ("my_parse", lambda ids, encoding: solve("my_parse", ids, encoding)[:2]),
    ("my_rms_norm", lambda x, scale, eps: solve("my_rms_norm", x, scale, 1e-5)),
    ("my_rms_norm", lambda x, scale, eps: solve("my_rms_norm", x, scale.abs(), eps)),
    ("my_rotate", lambda x, cos, sin: solve("my_rotate", x, cos[:1], sin[:1])),
    ("my_rotate", lambda x, cos, sin: x * cos + torch.cat((x[..., 3:], x[..., :3]), -1) * sin),
    ("my_yarn_frequencies", lambda dim, theta, *r: solve("my_yarn_frequencies", dim, 150e3, *r)),
    ("my_visible_keys", lambda q, k, window: solve("my_visible_keys", q, k, window and 32)),
    ("my_visible_keys", first_row_for_all),
    ("my_visible_keys", order_instead_of_positions),
    (
        "my_softmax_with_sink",
        lambda scores, sinks: solve("my_softmax_with_sink", scores, sinks[:1].expand(sinks.shape)),
    ),
    ("my_softmax_with_sink", largest_of_the_keys_only),
    ("my_router", powers_of_the_router_overflow),
    ("my_logit_change", quotient_of_softmaxes),
    ("my_first_difference", lambda *given: solve("my_first_difference", *given[:3], 1e-4)),
    ("my_sample", lambda x, how, draws: solve("my_sample", x, [how[0]] * len(how), draws)),
    ("my_answer", word_final_in_the_text),
    ("my_run_call", lambda call, tools: change(solve("my_run_call", call, tools), channel=None)),
    ("my_run_call", lambda call, tools: change(solve("my_run_call", call, tools), content_type="")),
    ("my_loop", lambda ask, run, messages, most: solve("my_loop", ask, run, messages, most or 1)),
    ("my_loop", lambda *given: (solve("my_loop", *given)[0], "answer")),
    ("my_client_messages", empty_texts_left_out),
    ("my_p_value", lambda x, null: solve("my_p_value", abs(x), [abs(each) for each in null])),
    ("my_loss", logarithm_of_the_softmax),
    ("my_direct_parts", lambda *given: solve("my_direct_parts", *given[:4], 2, 7)),
    ("my_effect", lambda *given: solve("my_effect", *given[:5], 4, 6)),
    ("my_patch", lambda *given: solve("my_patch", *given[:4], 1)),
    ("my_longest_context", lambda *given: solve("my_longest_context", *given[:5], 131_072)),
    ("my_longest_context", lambda *given: solve("my_longest_context", *given[:4], 64, given[5])),
    ("my_choice", most_memory_in_all),
    ("my_allowed", lambda answers, *rest: solve("my_allowed", answers[:2], *rest)),
    ("my_masked_places", masked_until_the_end),
    ("my_grade", object_anywhere_in_the_text),
    ("my_channels", channels_without_white_space),
    ("my_next_input", lambda output, results: solve("my_next_input", output[-2:], results)),
    ("my_unused_share", lambda ids, experts: solve("my_unused_share", ids, int(ids.max()) + 1)),
    ("my_share_of_limit", lambda *given: solve("my_share_of_limit", *given[:5], 4)),
]


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_an_answer_that_is_nearly_right_is_wrong(name, wrong):
    assert judge(EXERCISES[name], wrong).kind == "wrong"


def find_objects(value: Any) -> list[int]:
    """The addresses of what a function could change."""
    if isinstance(value, torch.Tensor):
        return [value.data_ptr()]
    if isinstance(value, list | dict):
        inside = value.values() if isinstance(value, dict) else value
        return [id(value), *(each for one in inside for each in find_objects(one))]
    return [each for one in value for each in find_objects(one)] if type(value) is tuple else []


@pytest.mark.parametrize("name", EXERCISES)
def test_no_two_arguments_of_the_cases_share_memory(name):
    cases = list(EXERCISES[name].cases())
    found = find_objects(tuple(cases))
    assert len(found) == len(set(found))


def test_a_function_that_changes_its_arguments_may_be_right():
    def my_swiglu(gate, up, alpha, limit):
        gate.clamp_(max=limit)
        gate *= torch.sigmoid(alpha * gate)
        gate *= up.clamp_(-limit, limit).add_(1)
        return gate

    assert judge(EXERCISES["my_swiglu"], my_swiglu).kind == "right"


class Hostile:
    """A result that cannot be shown or compared."""

    def __repr__(self) -> str:
        raise RuntimeError

    __eq__ = __str__ = __hash__ = __repr__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("name", "result", "sentence"),
    [
        (
            "my_rms_norm",
            torch.ones(3, 6, device="meta"),
            "returned a tensor [3, 6] float32 on meta",
        ),
        ("my_rms_norm", torch.ones(1, device="meta"), "returned a tensor [1] float32 on meta"),
        ("my_rms_norm", torch.ones(3, 6).to_sparse(), "it returned a sparse tensor"),
        (
            "my_rms_norm",
            torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
            "returned a nested tensor",
        ),
        ("my_rms_norm", Hostile(), "it returned <Hostile>"),
        ("my_merge", [Hostile()], "it returned <Hostile> at [0] of <list>"),
        ("my_cache_bytes", 10**5000, "it returned <int>"),
        ("my_lift", 10**5000, "it returned an int, <int>; expected a float"),
        ("my_lift", float("inf"), "it returned inf"),
    ],
    ids=range(9),
)
def test_a_strange_result_is_one_sentence(name, result, sentence):
    verdict = judge(EXERCISES[name], lambda *given: result)
    assert verdict.kind == "wrong"
    assert sentence in verdict.text


@pytest.mark.parametrize("error", [SystemExit("bye"), RecursionError("deep")])
def test_a_function_that_leaves_is_one_sentence(error):
    def my_lift(experts, tokens, expert, token):
        raise error

    assert judge(EXERCISES["my_lift"], my_lift).text.startswith(f"raised {type(error).__name__}")


def test_infinity_is_near_nothing_else():
    assert is_close(float("inf"), float("inf"), 1e-5)
    assert not is_close(float("inf"), 1.0, 1e-5)
    assert is_close(float("nan"), float("nan"), 1e-5)
    assert not is_close(1.0, float("nan"), 1e-5)
    assert not is_close(torch.tensor([200_000]), torch.tensor([200_001]), 1e-5)
