"""Python code that makes a run again, without views."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from oss_lab.engine.sampling import Sampling
from oss_lab.harmony import ToolDescription
from oss_lab.harmony.wire import conversation_to_dict
from oss_lab.hooks.interventions import Intervention
from oss_lab.lab import Lab
from oss_lab.lab.options import MAX_TOKENS
from oss_widgets.sources.interventions import to_python
from oss_widgets.sources.run import Run

ASKING = ("effort", "instructions", "tools")  # parts of the prompt


def write_python(run: Run, runs: Iterable[Run]) -> str:
    """Code that ends with `reply`, the last reply of a run, and `ids`, all its tokens."""
    by_id = {each.id: each for each in runs}
    line = [run]
    while line[0].parent is not None:
        line.insert(0, by_id[line[0].parent[0]])
    forks = line[1:]
    names = sorted({type(each).__name__ for step in line for each in step.interventions})
    head = ["import oss_lab"]
    if names:
        head.append(f"from oss_lab import {', '.join(names)}")
    if forks:
        head.append("from oss_lab.analysis.branch import Tree")
    if count_exchanges(line, 0) > 1:
        head.append("from oss_lab.record.calls import append_outputs")
    if line[0].tools is not None:
        head.append("from oss_lab.harmony import conversation_from_dict")
    return (
        "\n".join([*head, "", *write_load(run.lab), *write_root(line), *write_forks(line)]) + "\n"
    )


def write_load(lab: Lab) -> list[str]:
    """The line that loads the model."""
    if lab.checkpoint is None:
        return ["lab = ...  # your model"]
    name = "nano" if lab.tokenizer.name == "nano" else str(lab.checkpoint.folder)
    return [f"lab = oss_lab.load({name!r}, kernels={lab.engines.main.name!r})"]


def count_exchanges(line: list[Run], n: int) -> int:
    """How many exchanges of a run in a line matter: those that the next fork keeps."""
    exchanges = line[n].exchanges
    if n + 1 == len(line):
        return len(exchanges)
    _, at = line[n + 1].parent or ("", 0)
    return sum(each.start <= at for each in exchanges)


def write_root(line: list[Run]) -> list[str]:
    """The lines that ask, and that answer the model's calls."""
    run = line[0]
    if run.request is None:
        return ["reply = ...  # the reply that the view was given"]
    options = list_options(run)
    always = {name: options[name] for name in options if name not in ASKING}
    later = [f"{name}={value}" for name, value in always.items()]
    if run.tools is None:
        first = [write_question(run.request), *(f"{name}={options[name]}" for name in options)]
    else:  # a toolbox is a part of the conversation only
        prompt = run.exchanges[0].builder.prompt
        assert prompt is not None
        first = [f"conversation_from_dict({conversation_to_dict(prompt)!r})", *later]
    lines = [f"reply = lab.chat({', '.join(first)})"]
    exchanges = run.exchanges[: count_exchanges(line, 0)]
    for earlier, exchange in pairwise(exchanges):
        assert earlier.reply is not None
        prompt = exchange.builder.prompt
        count = len(earlier.reply.open_calls)
        outputs = [message.text for message in (prompt.messages if prompt else ())[-count:]]
        lines.append(f"outputs = iter({outputs!r})")
        asked = "append_outputs(reply, lambda call: next(outputs))"
        lines.append(f"reply = lab.chat({', '.join([asked, *later])})")
    return lines


def write_question(request: Mapping[str, Any]) -> str:
    """The question; with earlier ones, all messages."""
    if not request.get("history"):
        return repr(request["question"])
    messages = []
    for question, answer in request["history"]:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return repr([*messages, {"role": "user", "content": request["question"]}])


def list_options(run: Run) -> dict[str, str]:
    """The keywords of `lab.chat`, as code; those with the lab's defaults are left out."""
    request, found = run.request or {}, {}
    for name in ("effort", "instructions"):
        if request.get(name) is not None:
            found[name] = repr(request[name])
    if request.get("tools"):
        found["tools"] = repr([write_tool(each) for each in request["tools"]])
    found |= list_sampling(run)
    if run.settings.max_tokens != MAX_TOKENS:
        found["max_tokens"] = repr(run.settings.max_tokens)
    if run.interventions:
        found["interventions"] = write_list(run.interventions)
    return found


def list_sampling(run: Run) -> dict[str, str]:
    """The fields of its sampling that are not the lab's, as code."""
    usual: Sampling = run.lab.sampling
    fields = asdict(run.settings.sampling).items()
    return {name: repr(value) for name, value in fields if value != getattr(usual, name)}


def write_tool(tool: Any) -> dict[str, Any]:
    """A tool in the form of OpenAI's API."""
    plain = asdict(tool) if isinstance(tool, ToolDescription) else dict(tool)
    return {"type": "function", "function": plain}


def write_list(interventions: Iterable[Intervention]) -> str:
    return f"[{', '.join(map(to_python, interventions))}]"


def write_forks(line: list[Run]) -> list[str]:
    """The lines that fork: `line` has the first run, then each fork of the one before."""
    if len(line) < 2:
        return [] if line[0].request is None else ["ids = [*reply.prompt_tokens, *reply.ids]"]
    lines = within(line[0].interventions, "tree = Tree(lab, reply)")
    if line[0].settings.sampling.temperature:
        lines.append("# A branch draws other random numbers, so its reply differs from the view's.")
    node = "tree.root"
    for n, run in enumerate(line[1:], 1):
        assert run.parent is not None
        at = run.parent[1]
        inherited = count_exchanges(line[: n + 1], n - 1)
        begin = run.exchanges[inherited - 1].start
        left = max(1, run.settings.max_tokens - (at + run.written - begin))
        branches = [(at, run.ids[at : at + run.written], left)]
        for each in run.exchanges[inherited : count_exchanges(line, n)]:  # after tool outputs
            branches.append((each.kept, run.ids[each.kept : each.start], run.settings.max_tokens))
        for at, written, limit in branches:
            options = [f"at={at}", f"write={written!r}", f"max_tokens={limit}"]
            if sampling := list_sampling(run):
                fields = ", ".join(f"{name}={value}" for name, value in sampling.items())
                options.append(f"sampling=oss_lab.Sampling({fields})")
            call = f"node = tree.branch({', '.join([node, *options])})"
            lines += within(run.interventions, call)
            node = "node"
    return [*lines, "reply = tree.reply(node)", "ids = list(node.ids)"]


def within(interventions: tuple[Intervention, ...], line: str) -> list[str]:
    """A line, inside a `with` block if there are interventions."""
    if not interventions:
        return [line]
    return [f"with lab.intervene({', '.join(map(to_python, interventions))}):", f"    {line}"]
