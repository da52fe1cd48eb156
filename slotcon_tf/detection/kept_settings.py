"""What no tensor of a detector tells: settings beside its weights in a file."""

from __future__ import annotations

import json
from typing import Any

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.interop.pickles import CheckpointFileError, one_line
from slotcon_tf.interop.weights import Weights

_KEY = "slotcon_tf_detector"  # of `args`; detectron2 passes it over
_PAIRS = ("proposals", "test_proposals")
_COUNTS = ("anchors_per_image", "regions_per_image", "max_detections")
_EDGES = ("short_edge", "long_edge")
_NAMES = (*_PAIRS, *_COUNTS, *_EDGES, "fixed_shapes", "seed")


def written_settings(model: MaskRCNN) -> dict[str, str]:
    """Settings to write: dict of one text.

    Args:
        model: A `MaskRCNN`.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> sizes = {"channels": 8, "units": 16, "short_edge": 64, "long_edge": 128}
        >>> model = MaskRCNN(encoder, class_names=("cat", "dog"), **sizes)
        >>> '"short_edge": 64' in written_settings(model)["slotcon_tf_detector"]
        True
    """
    return {_KEY: json.dumps({name: getattr(model, name) for name in _NAMES})}


def read_settings(weights: Weights) -> dict[str, Any]:
    """Arguments of `MaskRCNN` that stand in a file; none where others wrote it.

    Args:
        weights: `Weights`.

    Raises:
        CheckpointFileError: If they are damaged.

    Example:
        >>> import pathlib
        >>> kept = {"slotcon_tf_detector": '{"seed": 3}'}
        >>> read_settings(Weights({"conv.weight": None}, kept, pathlib.Path("a.pth")))
        {'seed': 3}
    """
    text = weights.settings.get(_KEY)
    if text is None:
        return {}
    try:
        return _checked(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointFileError(
            f"{_KEY} of {weights.path} must be settings of a detector in JSON. "
            f"Received: {one_line(error)}. Save the file again."
        ) from error


def _checked(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or not found.keys() <= {*_NAMES}:
        raise ValueError(f"{found}")
    for name, value in found.items():
        if not _fits(name, value):
            raise ValueError(f"{name}={value}")
    if {*_EDGES} <= found.keys() and found["long_edge"] < found["short_edge"]:
        raise ValueError("a long edge shorter than the short edge")
    return found


def _fits(name: str, value: Any) -> bool:
    if name == "fixed_shapes":
        return isinstance(value, bool)
    if name == "seed":
        return type(value) is int and -(2**63) <= value < 2**63
    counts = value if name in _PAIRS and isinstance(value, list) else [value]
    whole = all(type(count) is int and 0 < count < 2**31 for count in counts)
    return whole and len(counts) == (2 if name in _PAIRS else 1)
