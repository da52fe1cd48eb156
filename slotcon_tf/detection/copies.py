"""copy_detector: from one detector to another, by detectron2's names."""

from __future__ import annotations

from slotcon_tf.detection.kinds import MASKS
from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.names import detector_entries

_OF_CLASSES = ("roi_heads.box_predictor.", f"{MASKS}predictor.")


def copy_detector(source: MaskRCNN, target: MaskRCNN) -> list[str]:
    """Gives a detector another's weights and statistics; its step stays.

    Args:
        source: `MaskRCNN`.
        target: `MaskRCNN` of the same sizes; classes may be others.

    Returns:
        detectron2's names of what stays as it is: where the classes are others, the
        layers that have a part for each of them.

    Raises:
        ValueError: If sizes differ; the first name that differs is told. Nothing is
            copied then.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16}
        >>> encoder = backbone("resnet10", width=8)
        >>> one = MaskRCNN(encoder, class_names=("cat", "dog"), **sizes)
        >>> two = MaskRCNN(encoder, class_names=("cow",), masks=False, **sizes)
        >>> copy_detector(one, two)[0]
        'roi_heads.box_predictor.cls_score.weight'
    """
    theirs, ours = detector_entries(source), detector_entries(target)
    own = () if source.class_names == target.class_names else _OF_CLASSES
    kept = [name for name in ours if name.startswith(own) or name not in theirs]
    taken = [name for name in ours if name not in kept]
    for name in taken:
        if ours[name].shape != theirs[name].shape:
            raise ValueError(
                f"A detector must have the other's sizes. Received: {name} of shape "
                f"{theirs[name].shape}, for {ours[name].shape}."
            )
    for name in taken:
        ours[name].variable.assign(theirs[name].variable)
    return kept
