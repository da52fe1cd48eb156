"""Features of images from a served SlotCon model, without TensorFlow.

    from slotcon_client import FeatureClient

Nothing here imports slotcon_tf, TensorFlow or Keras; a name is imported when it is first
asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"  # of slotcon_tf, whose wheel holds this package as well

if TYPE_CHECKING:
    from slotcon_client.answers import Served
    from slotcon_client.async_client import AsyncFeatureClient
    from slotcon_client.client import FeatureClient
    from slotcon_client.errors import (
        ExtractionError,
        RequestError,
        Unavailable,
        WrongAnswer,
    )

__all__ = [
    "AsyncFeatureClient",
    "ExtractionError",
    "FeatureClient",
    "RequestError",
    "Served",
    "Unavailable",
    "WrongAnswer",
]

_PLACES = {
    "AsyncFeatureClient": "async_client",
    "FeatureClient": "client",
    "Served": "answers",
    **dict.fromkeys(
        ("ExtractionError", "RequestError", "Unavailable", "WrongAnswer"), "errors"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
