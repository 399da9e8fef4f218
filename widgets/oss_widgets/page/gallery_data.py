"""nano's gallery as JSON, for the page that runs nano in JavaScript."""

from dataclasses import asdict
from typing import Any

from oss_lab.nano.gallery import ABILITIES, GALLERY
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL


def build_gallery_data() -> dict[str, Any]:
    """What nano can do, the examples in the order in which they are shown, and the calculator."""
    return {
        "abilities": ABILITIES,
        "examples": [asdict(example) for example in GALLERY],
        "calculator": asdict(CALCULATOR_TOOL),
    }
