"""Images in a request: no gpt-oss can see them, so they are refused or replaced by a note."""

from collections.abc import Mapping
from typing import Any

from oss_lab.server.errors import ApiError
from oss_lab.server.settings import Images

KINDS = {"image_url": "text", "input_image": "input_text"}  # each with the type of a text part
PLACEHOLDER = "[an image, which this model cannot see]"


def replace_images(message: Mapping[str, Any], images: Images, notes: list[str]) -> dict[str, Any]:
    """The message with a text in place of each image.

    Raises:
        ApiError: it has an image, and images are refused.
    """
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [replace_part(part, images, notes) for part in content]}


def replace_part(part: Any, images: Images, notes: list[str]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return part
    if images == "refuse":
        raise ApiError(
            400,
            f"a part of type '{kind}' is an image, and this model reads only text; leave it out,"
            " or start the server with --images placeholder",
            code="unsupported_content",
        )
    notes.append("an image was replaced by a note, because the model reads only text")
    return {"type": KINDS[kind], "text": PLACEHOLDER}
