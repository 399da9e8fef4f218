"""Other engines with the same `chat` and `stream`: vLLM, Ollama, llama.cpp, LM Studio, any server
with the API of OpenAI's chat completions, and `oss-lab serve`.

    messages     a Conversation as the API's messages and tools
    chunks       the API's chunks as Harmony events, and the reply
    connection   connect(URL, model=...) -> Connection

The engine renders the prompt and parses the reply. What it does not send (tokens, activations) is
not there, and asking for it raises an error that says so. Needs the package openai (extra
`connect`).
"""

from oss_lab.server.remote.connection import Connection, connect

__all__ = ["Connection", "connect"]
