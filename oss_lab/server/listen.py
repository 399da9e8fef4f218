"""Open the port, and answer requests there with uvicorn until the process is asked to end."""

import socket as sockets

import uvicorn
from fastapi import FastAPI

from oss_lab.errors import LabError

LAST_SECONDS = 5  # for open streams, once the process is asked to end
IDLE_SECONDS = 75  # until an idle connection is closed; clients reuse theirs for about a minute


def open_socket(host: str, port: int) -> sockets.socket:
    """A socket that is bound to this address; port 0 is a free one.

    Raises:
        LabError: the address cannot be used.
    """
    try:
        family, *_, address = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM)[0]
        socket = sockets.socket(family, sockets.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LabError(f"--host {host!r} cannot be used ({error}); use 127.0.0.1") from None
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        socket.bind(address)
    except OSError as error:
        socket.close()
        raise LabError(
            f"port {port} of {host} is not available ({error.strerror}): choose another --port"
        ) from None
    return socket


def listen(app: FastAPI, socket: sockets.socket) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    build_server(app).run([socket])


def build_server(app: FastAPI) -> uvicorn.Server:
    """The HTTP server. WebSocket requests reach the application, which refuses them by name."""
    config = uvicorn.Config(
        app,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    return uvicorn.Server(config)
