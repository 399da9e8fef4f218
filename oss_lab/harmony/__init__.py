"""Harmony, the chat format of gpt-oss: messages <-> tokens.

    messages   Conversation, Message, SystemContent, DeveloperContent, ToolDescription, ...
    rendering  render(conversation, encoding) -> Rendered: tokens, annotations, loss mask
    parsing    StreamParser(encoding).feed(token) -> events;  parse(tokens, encoding) -> messages
    parts      chat_parts.py: one message, or one reply, by a function that can be replaced
    policies   POLICIES: which earlier reasoning is left out, with explanations
    calls      pair_calls(messages): each call with its output
    schemas    to_typescript(json_schema), the text that describes a function's arguments
    files      conversation_from_dict, conversation_to_dict: openai-harmony's JSON
    OpenAI     convert_messages(messages, effort=...), describe_tools(tools): dictionaries and
               Python functions
    parity     LibraryParser: openai-harmony 0.0.8's parser, including its defects

Any tiktoken `Encoding` with Harmony's special tokens works. Nothing here imports torch.
"""

from oss_lab.harmony.builtin_tools import BROWSER, PYTHON
from oss_lab.harmony.demands import find_declared_tools, find_demanded_channels
from oss_lab.harmony.events import (
    Delta,
    Diagnostic,
    DiagnosticKind,
    End,
    Event,
    Header,
    Start,
    event_to_dict,
)
from oss_lab.harmony.exchanges import Exchange, pair_calls
from oss_lab.harmony.library_parser import LibraryParser
from oss_lab.harmony.messages import (
    Author,
    ChannelConfig,
    Conversation,
    DeveloperContent,
    Message,
    ResponseFormat,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespace,
    make_function_tools,
)
from oss_lab.harmony.openai_messages import convert_messages
from oss_lab.harmony.parse import StreamParser, parse
from oss_lab.harmony.policy import MODES, POLICIES
from oss_lab.harmony.render import LAYOUTS, Annotation, Rendered, render
from oss_lab.harmony.schema import to_typescript
from oss_lab.harmony.specials import stop_tokens
from oss_lab.harmony.tool_forms import describe_tools
from oss_lab.harmony.wire import (
    conversation_from_dict,
    conversation_to_dict,
    message_to_dict,
    plain_message,
)

__all__ = [
    "BROWSER",
    "LAYOUTS",
    "MODES",
    "POLICIES",
    "PYTHON",
    "Annotation",
    "Author",
    "ChannelConfig",
    "Conversation",
    "Delta",
    "DeveloperContent",
    "Diagnostic",
    "DiagnosticKind",
    "End",
    "Event",
    "Exchange",
    "Header",
    "LibraryParser",
    "Message",
    "Rendered",
    "ResponseFormat",
    "Start",
    "StreamParser",
    "SystemContent",
    "TextContent",
    "ToolDescription",
    "ToolNamespace",
    "conversation_from_dict",
    "conversation_to_dict",
    "convert_messages",
    "describe_tools",
    "event_to_dict",
    "find_declared_tools",
    "find_demanded_channels",
    "make_function_tools",
    "message_to_dict",
    "pair_calls",
    "parse",
    "plain_message",
    "render",
    "stop_tokens",
    "to_typescript",
]
