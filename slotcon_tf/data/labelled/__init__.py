"""Images with labels, for evaluation and fine-tuning: label maps, or one per image."""

from slotcon_tf.data.labelled.classes import (
    check_same_classes,
    check_two_classes,
    check_two_labels,
)
from slotcon_tf.data.labelled.classified import ClassifiedImages, open_classified
from slotcon_tf.data.labelled.decoding import VOID, LabelError
from slotcon_tf.data.labelled.segmented import (
    SEGMENTED,
    SegmentedImages,
    open_segmented,
)

__all__ = [
    "SEGMENTED",
    "VOID",
    "ClassifiedImages",
    "LabelError",
    "SegmentedImages",
    "check_same_classes",
    "check_two_classes",
    "check_two_labels",
    "open_classified",
    "open_segmented",
]
