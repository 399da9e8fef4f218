"""`oss-lab serve`: the model as an HTTP API that any OpenAI client can use.

    oss-lab serve nano

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=TOKEN

The endpoints are /v1/responses, /v1/chat/completions, /v1/models, /health and /metrics. The server
listens on this machine only, and clients need the token that it prints. Responses are kept in a
file that only you can read, until you delete them with --forget. A client that sends `store: false`
keeps its response out of that file.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, BadParameter, Option

from oss_lab.cli._options import Download, Threads, has_error_terminal
from oss_lab.errors import LabError

if TYPE_CHECKING:
    from oss_lab.server.settings import Settings


def check_port(port: int) -> int:
    """Raise BadParameter if --port is not a port number."""
    if not 0 <= port <= 65535:
        raise BadParameter(f"{port} is not a port: give a number from 0 (a free one) to 65535")
    return port


def run(
    checkpoint: Annotated[
        str | None,
        Argument(metavar="CHECKPOINT", help="nano, 20b, 120b, a Hub id or a checkpoint folder"),
    ] = None,
    host: Annotated[str, Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, Option(callback=check_port, help="port; 0 is a free one")] = 8000,
    token: Annotated[
        str | None,
        Option(help="what clients must send (default: OSS_LAB_TOKEN, or a random one)"),
    ] = None,
    allow_host: Annotated[
        list[str] | None, Option(help="names in addition to localhost that clients may use")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, Option(help="web pages that may call the server, as https://NAME")
    ] = None,
    hide_analysis: Annotated[
        bool, Option("--hide-analysis", help="keep the chain of thought from clients")
    ] = False,
    images: Annotated[
        Literal["refuse", "placeholder"],
        Option(help="refuse images, which the model cannot see, or replace them by a note"),
    ] = "refuse",
    rows: Annotated[int, Option(min=1, help="replies that are generated at the same time")] = 32,
    waiting: Annotated[int, Option(min=0, help="replies that may wait for a free row")] = 128,
    max_tokens: Annotated[int, Option(min=1, help="maximum tokens per reply")] = 2048,
    max_seconds: Annotated[float, Option(min=1, help="maximum seconds per reply")] = 600,
    max_megabytes: Annotated[float, Option(min=0.001, help="maximum size of a request")] = 4,
    store: Annotated[Path | None, Option(help="file that keeps the responses")] = None,
    forget: Annotated[
        bool, Option("--forget", help="delete all responses that were kept, and exit")
    ] = False,
    threads: Threads = None,
    download: Download = False,
) -> int:
    """Serve a model to OpenAI clients."""
    from oss_lab.server.settings import Limits, Settings, choose_token
    from oss_lab.server.store import default_path

    file = store or default_path()
    if forget:
        return forget_responses(file)
    if checkpoint is None:
        raise LabError("expected a checkpoint to serve, for example `oss-lab serve nano`")
    limits = Limits(
        rows, waiting, int(max_megabytes * 2**20), seconds=max_seconds, tokens=max_tokens
    )
    settings = Settings(
        checkpoint,
        choose_token(token),
        tuple(name.lower() for name in allow_host or ()),
        tuple(allow_origin or ()),
        hide_analysis=hide_analysis,
        images=images,
        store=file,
        limits=limits,
    )
    return serve(settings, host, port, threads, download=download)


def serve(
    settings: "Settings", host: str, port: int, threads: int | None, *, download: bool
) -> int:
    """Load the model and serve it until Ctrl-C."""
    try:
        import fastapi
        import uvicorn
    except ModuleNotFoundError as error:
        raise LabError(
            f'{error.name} is not installed: run `pip install "oss-lab[server]"`'
        ) from None
    del fastapi, uvicorn
    import gc
    import warnings

    import torch

    from oss_lab.errors import HarmonyWarning
    from oss_lab.lab import load
    from oss_lab.server.app import build_app
    from oss_lab.server.listen import listen, open_socket

    socket = open_socket(host, port)  # before the model, which may take minutes to load
    if threads is not None:
        torch.set_num_threads(threads)
    lab = load(settings.model, download=download, verbose=has_error_terminal())
    warnings.simplefilter("ignore", HarmonyWarning)  # clients get them in a header
    app = build_app(lab, settings)
    # Python's collector would look through the whole model again and again.
    gc.freeze()
    gc.set_threshold(20_000)
    socket.listen()  # from here on clients can connect, and wait until the first answers
    address = socket.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    print(f"{settings.model} is served at http://{shown}:{address[1]}/v1", file=sys.stderr)
    print(f"token: {settings.token}", file=sys.stderr, flush=True)
    listen(app, socket)
    return 0


def forget_responses(file: Path) -> int:
    """Delete all responses that were kept in a file."""
    from oss_lab.server.store import Store

    if not file.exists():
        raise LabError(f"{file} does not exist, so no responses are kept there")
    store = Store(file)
    print(f"responses deleted: {store.delete_all()}", file=sys.stderr)
    store.close()
    return 0
