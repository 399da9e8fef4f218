"""Read, delete and cancel responses by their ids."""

import asyncio
from typing import Any

from oss_lab.server.context import Context
from oss_lab.server.errors import ApiError
from oss_lab.server.store import Record


async def show_response(context: Context, id: str) -> dict[str, Any]:
    """A response: stored, or still being generated."""
    if id in context.running:
        return context.running[id].response
    return (await find_record(context, id)).response


async def show_input_items(context: Context, id: str) -> dict[str, Any]:
    """The items of the request."""
    if id in context.running:
        items = context.running[id].asked.items
    else:
        items = (await find_record(context, id)).input
    return {
        "object": "list",
        "data": items[::-1],  # newest first, as in the API
        "first_id": items[-1]["id"] if items else None,
        "last_id": items[0]["id"] if items else None,
        "has_more": False,
    }


async def delete_response(context: Context, id: str) -> dict[str, Any]:
    """Delete a response; one that is being generated is cancelled and not stored."""
    writer = context.running.get(id)
    if writer is not None:
        writer.asked.body.store = False
        context.scheduler.cancel(writer.job)
    elif not await asyncio.to_thread(context.store.delete, id):
        raise not_found(id)
    return {"id": id, "object": "response", "deleted": True}


async def cancel_response(context: Context, id: str) -> dict[str, Any]:
    """End a response that is being generated; what was generated is kept."""
    writer = context.running.get(id)
    if writer is None:
        record = await find_record(context, id)
        status = record.response["status"]
        raise ApiError(
            400, f"the response is {status} and cannot be cancelled", code="not_cancellable"
        )
    context.scheduler.cancel(writer.job)
    return {**writer.response, "status": "cancelled"}


async def find_record(context: Context, id: str) -> Record:
    """The stored response.

    Raises:
        ApiError: there is none with this id.
    """
    record = await asyncio.to_thread(context.store.find, id)
    if record is None:
        raise not_found(id)
    return record


def not_found(id: str) -> ApiError:
    return ApiError(
        404, f"Response with id '{id[:100]}' not found.", code="response_not_found", param="id"
    )
