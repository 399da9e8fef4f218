"""The application: its endpoints, what it answers to errors, and the thread that runs the model."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oss_lab.errors import LabError
from oss_lab.lab import Lab
from oss_lab.server import status
from oss_lab.server.chat.endpoint import create_chat_completion
from oss_lab.server.chat.request import ChatBody
from oss_lab.server.context import Context
from oss_lab.server.errors import INTERNAL, ApiError
from oss_lab.server.gate import Gate
from oss_lab.server.openapi import describe_body, describe_errors
from oss_lab.server.responses import stored
from oss_lab.server.responses.endpoint import create_response
from oss_lab.server.responses.request import ResponseBody
from oss_lab.server.scheduler import Scheduler
from oss_lab.server.settings import Settings
from oss_lab.server.store import Store
from oss_lab.version import __version__


def build_app(lab: Lab, settings: Settings) -> FastAPI:
    """The application of one model. Its thread starts and ends with the application.

    Raises:
        LabError: the file of stored responses cannot be used.
    """
    store = Store(settings.store)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        scheduler = Scheduler(lab, settings.limits, asyncio.get_running_loop())
        app.state.context = Context(lab, settings, scheduler, store)
        try:
            yield
        finally:
            await asyncio.to_thread(scheduler.close)
            store.close()

    app = FastAPI(
        title="oss-lab serve",
        version=__version__,
        lifespan=live,
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
    )
    answers: Counter[int] = Counter()
    app.add_middleware(Gate, settings=settings, answers=answers)
    add_errors(app)
    add_endpoints(app, answers)
    return app


def add_endpoints(app: FastAPI, answers: Counter[int]) -> None:
    """All endpoints. Bodies are read by our own code, so they are only described here."""

    def context() -> Context:
        return app.state.context

    @app.get("/health")
    async def health() -> dict[str, str]:
        return status.show_health()

    @app.get("/metrics")
    async def metrics() -> Response:
        return status.show_metrics(context(), answers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return status.list_models(context())

    @app.get("/v1/models/{name:path}", responses=describe_errors(404))
    async def model(name: str) -> dict[str, Any]:
        return status.show_model(context(), name)

    @app.post("/v1/chat/completions", **describe_body(ChatBody))
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(context(), request)

    @app.post("/v1/responses", **describe_body(ResponseBody))
    async def responses(request: Request) -> Response:
        return await create_response(context(), request)

    @app.post("/v1/responses/compact", include_in_schema=False)
    async def compact() -> Response:
        raise ApiError(
            404,
            "compaction is not supported by this server; send the items, or previous_response_id",
            code="unsupported_endpoint",
        )

    @app.get("/v1/responses/{id}", responses=describe_errors(404))
    async def response(id: str) -> dict[str, Any]:
        return await stored.show_response(context(), id)

    @app.get("/v1/responses/{id}/input_items", responses=describe_errors(404))
    async def input_items(id: str) -> dict[str, Any]:
        return await stored.show_input_items(context(), id)

    @app.delete("/v1/responses/{id}", responses=describe_errors(404))
    async def delete(id: str) -> dict[str, Any]:
        return await stored.delete_response(context(), id)

    @app.post("/v1/responses/{id}/cancel", responses=describe_errors(400, 404))
    async def cancel(id: str) -> dict[str, Any]:
        return await stored.cancel_response(context(), id)


def add_errors(app: FastAPI) -> None:
    """Answer every error with the API's error object; only the terminal shows a traceback."""

    def answer(error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        return answer(error)

    @app.exception_handler(LabError)
    async def explain(request: Request, error: LabError) -> Response:
        return answer(ApiError(500, str(error), code="server_error"))

    @app.exception_handler(HTTPException)
    async def rename(request: Request, error: HTTPException) -> Response:
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        where = f"{request.method} {request.url.path}"[:200]
        response = answer(ApiError(error.status_code, f"{error.detail}: {where}", code=code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def hide(request: Request, error: Exception) -> Response:
        return answer(INTERNAL)
