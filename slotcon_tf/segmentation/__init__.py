"""Fully convolutional segmentation: the paper's FCN protocols for fine-tuning."""

from slotcon_tf.presets import HEADS, OUTPUT_STRIDES
from slotcon_tf.segmentation.augmentation import Augmentation
from slotcon_tf.segmentation.dataset import crop_dataset
from slotcon_tf.segmentation.heads import FCNHead
from slotcon_tf.segmentation.inference import Predictor, evaluate
from slotcon_tf.segmentation.model import Segmenter, dilated
from slotcon_tf.visualize.figures import save_masks

__all__ = [
    "HEADS",
    "OUTPUT_STRIDES",
    "Augmentation",
    "FCNHead",
    "Predictor",
    "Segmenter",
    "crop_dataset",
    "dilated",
    "evaluate",
    "save_masks",
]
