"""Which of detectron2's detectors are of this protocol, by their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slotcon_tf.detection.anchors import SIZES, cell_anchors
from slotcon_tf.interop.pickles import CheckpointFileError

BOTTOM = "backbone.bottom_up."
MASKS = "roi_heads.mask_head."
ANCHORS = "proposal_generator.anchor_generator.cell_anchors."
_NO_PYRAMID = "a backbone without a pyramid, such as C4 or DC5"
_NO_NORM = "no batch normalisation in {}, as of the models with frozen or group norms"
_BOX = "a box head that is not of four convolutions and one dense layer (it has {})"
# What a network of detectron2 has not that is none of this protocol, and what it is.
_NEEDED = {
    f"{BOTTOM}stem.conv1.weight": _NO_PYRAMID + ", or one that is no ResNet",
    "backbone.fpn_lateral2.weight": _NO_PYRAMID,
    f"{BOTTOM}stem.conv1.norm.running_var": _NO_NORM.format("the backbone"),
    "backbone.fpn_lateral2.norm.running_var": _NO_NORM.format("the pyramid"),
    "roi_heads.box_predictor.cls_score.weight": "other heads, such as a cascade's",
    "roi_heads.box_head.conv4.weight": _BOX,
    "roi_heads.box_head.conv4.norm.running_var": _NO_NORM.format("the box head"),
    "roi_heads.box_head.fc1.weight": _BOX,
}
_NEEDED_OF_MASKS = {
    f"{MASKS}mask_fcn4.weight": "a mask head that is not of four convolutions",
    f"{MASKS}mask_fcn4.norm.running_var": _NO_NORM.format("the mask head"),
}
_NOT_OURS = {
    "roi_heads.box_head.fc2.weight": _BOX,
    "roi_heads.box_head.conv5.weight": _BOX,
    f"{MASKS}mask_fcn5.weight": _NEEDED_OF_MASKS[f"{MASKS}mask_fcn4.weight"],
}


def check_kind(shapes: Mapping[str, tuple]) -> None:
    """Refuses detectors of other protocols, by the first key that differs.

    Args:
        shapes: Of the tensors of a file, by detectron2's names.

    Raises:
        CheckpointFileError: If it is of another protocol.

    Example:
        >>> check_kind({"backbone.res4.0.conv1.weight": (4, 4, 1, 1)})
        Traceback (most recent call last):
        slotcon_tf.interop.pickles.CheckpointFileError: A detector must be a ResNet
        with a pyramid ... Received: no backbone.bottom_up.stem.conv1.weight: ...
    """
    masks = any(name.startswith(MASKS) for name in shapes)
    needed = {**_NEEDED, **(_NEEDED_OF_MASKS if masks else {})}
    missing = [key for key in needed if key not in shapes]
    wrong = [f"no {key}: {needed[key]}" for key in missing]
    wrong += [f"{key}: {what}" for key, what in _NOT_OURS.items() if key in shapes]
    if wrong:
        layers = [f"{kind}{i}" for kind in ("conv", "fc") for i in range(1, 10)]
        head = [n for n in layers if f"roi_heads.box_head.{n}.weight" in shapes]
        raise CheckpointFileError(
            "A detector must be a ResNet with a pyramid and batch normalisation "
            "everywhere, as the protocol of docs/detection.md has it. Received: "
            f"{wrong[0].format(', '.join(head) or 'neither')}. Take its encoder alone."
        )


def check_anchors(tensors: Mapping[str, Any]) -> None:
    """Refuses other anchors, where a file has them.

    Args:
        tensors: Of the file, by detectron2's names.

    Raises:
        CheckpointFileError: If a level has others.

    Example:
        >>> check_anchors({"roi_heads.box_head.fc1.weight": None})
    """
    for level, size in enumerate(SIZES):
        name = f"{ANCHORS}{level}"
        if name not in tensors:
            continue
        found, ours = np.asarray(tensors[name].numpy()), cell_anchors(size)
        if found.shape != ours.shape or not np.allclose(found, ours, atol=1e-3):
            raise CheckpointFileError(
                f"{name} must be anchors of size {size} and ratios 0.5, 1 and 2. "
                "Received: others."
            )
