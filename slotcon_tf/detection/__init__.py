"""Mask R-CNN on a feature pyramid, held to detectron2's numbers.

The maths is pure functions, a question a file; `MaskRCNN` has the state, and a
`train_step` of its own. `Detector` finds objects in images of any size, and
`evaluate_detector` scores them as COCO does.
"""

from slotcon_tf.detection.conversion import load_detector, save_detector
from slotcon_tf.detection.dataset import object_batches
from slotcon_tf.detection.detections import Detections
from slotcon_tf.detection.inference import Detector, Found
from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.names import detector_entries
from slotcon_tf.detection.paste import paste_masks
from slotcon_tf.detection.pictures import save_detections
from slotcon_tf.detection.results import coco_results, encode_masks, write_results
from slotcon_tf.detection.scoring import (
    DetectionScores,
    coco_scores,
    detection_scores,
    evaluate_detector,
)

__all__ = [
    "DetectionScores",
    "Detections",
    "Detector",
    "Found",
    "MaskRCNN",
    "coco_results",
    "coco_scores",
    "detection_scores",
    "detector_entries",
    "encode_masks",
    "evaluate_detector",
    "load_detector",
    "object_batches",
    "paste_masks",
    "save_detections",
    "save_detector",
    "write_results",
]
