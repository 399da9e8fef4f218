"""`connect(URL)`: an engine that somebody runs elsewhere, with the `chat` and `stream` of a lab.

model = oss_lab.connect("http://127.0.0.1:8080/v1")
model.chat("What is 3 * 4?", effort="low").final
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Unpack

from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError, explain_unknown, shorten
from oss_lab.harmony.events import Event
from oss_lab.harmony.messages import Conversation, Effort
from oss_lab.harmony.prompt import Question, build_prompt, require_prompts
from oss_lab.lab.options import MESSAGE_KEYWORDS, Options
from oss_lab.record.builder import Stream
from oss_lab.record.reply import Reply
from oss_lab.server.remote.chunks import ChunkReader, read_text
from oss_lab.server.remote.messages import to_api

TIMEOUT = 600.0  # seconds; a laptop may think for minutes before its first token
SENT = ("temperature", "top_p", "seed", "max_tokens", "stop")
EXTRA = ("top_k", "min_p")  # not OpenAI's, but most local engines know them


def connect(
    url: str, *, model: str | None = None, token: str | None = None, timeout: float = TIMEOUT
) -> "Connection":
    """Connect to a server that speaks OpenAI's chat completions.

    Args:
        url: its address, up to and including `/v1`.
        model: the model's name there; None if it has only one.
        token: the access token; None for a server without one.
        timeout: seconds without a sign of life after which a request fails.

    Raises:
        LabError: nothing answers there, the token is wrong, or there is no such model.
    """
    try:
        import openai
    except ImportError:
        raise LabError(
            "connecting needs the package openai; install it with `pip install 'oss-lab[connect]'`"
        ) from None
    if not url.startswith(("http://", "https://")):
        raise LabError(f"{url!r} is not an address; give one such as http://127.0.0.1:8080/v1")
    if token and (not token.isascii() or token.split() != [token]):
        raise LabError("the token must be ASCII without spaces")
    options: Any = {"api_key": token or "none", "timeout": timeout, "max_retries": 0}
    try:
        client = openai.OpenAI(base_url=url, **options)
    except Exception as error:  # of the package's HTTP client, which may be one of several
        raise LabError(f"{url!r} is not an address ({shorten(str(error), 80)})") from None
    # The package reads more from the environment, which is meant for OpenAI's server.
    client.organization = client.project = None
    client._custom_headers = {}
    names = _ask(url, lambda: [read_text(each.id) for each in client.models.list() if each.id])
    if model is None and len(names) == 1:
        model = names[0]
    if model is None or model not in names:
        wanted = "which model?" if model is None else f"there is no model {model!r};"
        listed = f"choose one of {shorten(', '.join(names[:8]), 300)}" if names else "it lists none"
        raise LabError(f"{url}: {wanted} {listed}")
    return Connection(client, url, model)


class Connection:
    """A model that runs in another engine.

    Attributes:
        model: its name there.
        effort: the default of every call.

    Sampling options that are not given are the engine's own defaults. `chat` and `stream` take the
    keywords of `Options`, without those that only an engine of oss_lab has.
    """

    def __init__(self, client: Any, url: str, model: str, effort: Effort = "medium") -> None:
        self._client, self.url, self.model = client, url, model
        self.effort: Effort = effort

    def chat(self, question: Question, **options: Unpack[Options]) -> Reply:
        """Reply to a question or a conversation."""
        return self.stream(question, **options).read()

    def chat_batch(self, questions: Sequence[Question], **options: Unpack[Options]) -> list[Reply]:
        """Reply to several questions, one after another."""
        return [self.chat(each, **options) for each in require_prompts(questions, "chat")]

    def stream(self, question: Question, **options: Unpack[Options]) -> Stream:
        """Reply as a stream of Harmony events, without the positions of tokens."""
        prompt = self.conversation(question, **options)
        fields = {"model": self.model, **to_api(prompt), **list_sampling(options)}
        try:
            json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise LabError(f"the request cannot be written as JSON: {error}") from None
        reader = ChunkReader(prompt, self.url)

        def events() -> Iterator[list[Event]]:
            create = self._client.chat.completions.create
            usage = {"include_usage": True}
            chunks = _ask(self.url, lambda: create(**fields, stream=True, stream_options=usage))
            try:
                while (chunk := _ask(self.url, lambda: next(chunks, None))) is not None:
                    yield reader.add(chunk)
            finally:
                chunks.close()  # the engine stops when nobody listens
            if reader.finish_reason is None:
                raise LabError(f"{self.url}: the reply broke off; ask again")

        return Stream(reader, events(), lambda reply: reply)

    def conversation(self, question: Question, **options: Any) -> Conversation:
        """The conversation that `chat` sends.

        Raises:
            LabError: a keyword does not exist, or has no effect on another engine.
        """
        if unknown := options.keys() - Options.__annotations__.keys():
            raise LabError(explain_unknown("keyword", min(unknown), Options.__annotations__))
        usable = {*MESSAGE_KEYWORDS, *SENT, *EXTRA, "sampling"}
        for name, value in options.items():
            if name not in usable and value not in (None, (), [], 0, False):
                raise LabError(f"{name} has no effect on another engine; leave it out")
        given: Any = {name: value for name, value in options.items() if name in MESSAGE_KEYWORDS}
        return build_prompt(question, default_effort=self.effort, **given)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise LabError(
            f"{self.url} shows only text, nothing from inside the model; load its weights with"
            " `oss_lab.load`"
        )

    trace = trace_batch = logits = logits_batch = lens = patch = gradients = collect = _refuse
    intervene = plan = generate = stream_text = tokens_of = with_parts = _refuse

    def __repr__(self) -> str:
        return f"<Connection to {self.model} at {self.url}>"


def list_sampling(options: Any) -> dict[str, Any]:
    """The sampling fields of a request: those of `sampling`, then the keywords."""
    sampling = options.get("sampling")
    given: dict[str, Any] = {}
    if sampling is not None:
        if not isinstance(sampling, Sampling):
            raise LabError(f"sampling: expected a Sampling, got {type(sampling).__name__}")
        given = {name: getattr(sampling, name) for name in ("temperature", "top_p", "seed", *EXTRA)}
    given |= {name: options[name] for name in (*SENT, *EXTRA) if name in options}
    given = {name: value for name, value in given.items() if value is not None}
    extra = {name: given.pop(name) for name in EXTRA if name in given}
    return {**given, **({"extra_body": extra} if extra else {})}


def _ask(url: str, request: Any) -> Any:
    """Make a request; what goes wrong becomes one sentence."""
    import openai

    try:
        return request()
    except openai.AuthenticationError:
        raise LabError(
            f"{url}: the token is missing or wrong; give `token=` in Python, --token or"
            " OSS_LAB_TOKEN in a terminal"
        ) from None
    except openai.APITimeoutError:
        raise LabError(f"{url} did not answer in time; try again with a longer timeout") from None
    except openai.APIConnectionError as error:
        cause = shorten(str(error.__cause__ or error), 120)
        raise LabError(f"{url} does not answer ({cause}); is the server running?") from None
    except openai.APIStatusError as error:
        said = shorten(str(error.message), 200)
        hint = "" if url.rstrip("/").endswith("/v1") else "; most addresses end in /v1"
        raise LabError(f"{url} answered {error.status_code}: {said}{hint}") from None
    # how openai fails on other answers
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise LabError(
            f"{url} does not answer like OpenAI's chat completions; give an address up to /v1"
        ) from None
    except openai.OpenAIError as error:
        raise LabError(f"{url}: {shorten(str(error), 200)}") from None
