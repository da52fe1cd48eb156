"""Mask R-CNN on a feature pyramid, held to detectron2's numbers.

The maths is pure functions, a question a file; `MaskRCNN` has the state, and a
`train_step` of its own. How it is fed, trained from the command line and scored is not
here yet.
"""

from slotcon_tf.detection.dataset import object_batches
from slotcon_tf.detection.detections import Detections
from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.names import detector_entries
from slotcon_tf.detection.paste import paste_masks

__all__ = [
    "Detections",
    "MaskRCNN",
    "detector_entries",
    "object_batches",
    "paste_masks",
]
