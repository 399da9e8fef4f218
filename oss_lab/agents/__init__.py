"""Agents: a model that calls tools until it can answer.

agent.py       Agent: a model, tools and a budget; run, stream, session
tool.py        Tool: a typed Python function, or a JSON schema and a function; Toolbox
budget.py      Budget: the most calls, tokens and seconds of a run
stream.py      the loop; RunStream gives its events and the run so far (run_so_far.py)
events.py      what happens in a run: replies, calls, and the end
run.py         Run: everything that happened, as data; run_file.py writes it as JSON
calls.py       one call: its tool, its arguments (arguments.py), its output (outputs.py)
signature.py   the arguments of a Python function; json_schema.py: those of a schema
scripted.py    ScriptedModel: replies written beforehand, for tests and lessons
browser/       Browser: search, open and find over a corpus or a search service
sandbox/       PythonSandbox: a Python process with limits; python_toolbox.py: Python, its tool

from oss_lab.agents import Agent, Budget

agent = Agent(lab, [add], budget=Budget(calls=5))
run = agent.run("What is 4815 + 884?")
"""

from oss_lab.agents.agent import Agent, Session
from oss_lab.agents.browser.tool import Browser
from oss_lab.agents.budget import Budget
from oss_lab.agents.calls import CallRecord
from oss_lab.agents.events import (
    CallEnded,
    CallStarted,
    Event,
    ReplyDelta,
    ReplyEnded,
    ReplyStarted,
    Stopped,
    event_to_dict,
)
from oss_lab.agents.python_toolbox import Python
from oss_lab.agents.rounds import Round
from oss_lab.agents.run import Run, read_run, run_from_dict
from oss_lab.agents.run_file import run_to_dict
from oss_lab.agents.scripted import ScriptedModel, write_analysis, write_answer, write_call
from oss_lab.agents.stream import RunInterrupted, RunStream
from oss_lab.agents.tool import Noted, Tool, Toolbox

__all__ = [
    "Agent",
    "Browser",
    "Budget",
    "CallEnded",
    "CallRecord",
    "CallStarted",
    "Event",
    "Noted",
    "Python",
    "ReplyDelta",
    "ReplyEnded",
    "ReplyStarted",
    "Round",
    "Run",
    "RunInterrupted",
    "RunStream",
    "ScriptedModel",
    "Session",
    "Stopped",
    "Tool",
    "Toolbox",
    "event_to_dict",
    "read_run",
    "run_from_dict",
    "run_to_dict",
    "write_analysis",
    "write_answer",
    "write_call",
]
