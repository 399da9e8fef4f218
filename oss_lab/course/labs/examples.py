"""Problems of nano as training examples in OpenAI's form, as the finetune package reads them."""

from typing import Any

from oss_lab.harmony.messages import DeveloperContent, Effort
from oss_lab.nano.tasks.problem import Problem

Fields = dict[str, Any]
"""An example, or a part of one."""


def make_example(problem: Problem, effort: Effort = "low") -> Fields:
    """A problem as an example in OpenAI's form, with the tokens of `problem.conversation`.

    Earlier turns get their thoughts, too: rendering leaves them out, as in a chat, and then does
    not learn these turns.
    """
    fields: Fields = {"messages": list[Fields](), "effort": effort}
    if problem.developer and problem.developer.instructions:
        content = problem.developer.instructions
        fields["messages"].append({"role": "developer", "content": content})
    if problem.developer and problem.developer.tools:
        fields["tools"] = list_tools(problem.developer)
    for each in (*problem.history, problem):
        fields["messages"] += make_turn(each, effort)
    return fields


def list_tools(developer: DeveloperContent) -> list[Fields]:
    """The functions that a developer message declares, as OpenAI's dictionaries."""
    assert developer.tools
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in developer.tools["functions"].tools
    ]


def make_turn(problem: Problem, effort: Effort) -> list[Fields]:
    """The question, the calls with their outputs, and the answer."""
    messages: list[Fields] = [{"role": "user", "content": problem.question}]
    for number, call in enumerate(problem.calls):
        name = call.tool.removeprefix("functions.")
        function = {"name": name, "arguments": call.arguments}
        called = {"id": str(number), "type": "function", "function": function}
        spoken = {"role": "assistant", "content": None, "tool_calls": [called]}
        messages.append(think(spoken, call.thoughts[effort]))
        messages.append({"role": "tool", "tool_call_id": str(number), "content": call.output})
    answer = {"role": "assistant", "content": problem.answer}
    return [*messages, think(answer, problem.thoughts[effort])]


def think(message: Fields, thought: str) -> Fields:
    return message | {"reasoning_content": thought} if thought else message
