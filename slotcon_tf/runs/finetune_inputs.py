"""What a fine-tuning begins with: labelled images, and a pretrained encoder."""

from __future__ import annotations

import contextlib
import threading

import numpy as np

from slotcon_tf.data.labelled import (
    LabelError,
    SegmentedImages,
    check_same_classes,
    check_two_classes,
    open_segmented,
)
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.label_settings import label_options
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.segmentation import Segmenter


class TrainImages:
    """Labelled images for the threads of an input pipeline.

    Args:
        images: `SegmentedImages`.
        in_order: Whether they are read from one stream, and so by one thread at a time.

    Attributes:
        error: The `LabelError` that ended the reading, or None.
    """

    def __init__(self, images: SegmentedImages, in_order: bool) -> None:
        self.images = images
        self.num_images = images.num_images
        self.error: LabelError | None = None
        self._turn = threading.Lock() if in_order else contextlib.nullcontext()

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image uint8 (height, width, 3), and its labels uint8 (height, width)."""
        try:
            with self._turn:
                return self.images.load(index)
        except LabelError as error:
            self.error = error
            raise


def open_images(config: FinetuneConfig) -> tuple[TrainImages, SegmentedImages]:
    """The images of both splits, which must have the same classes.

    Raises:
        LabelError, OSError: If they cannot be used.
    """
    options = {"crop_size": 0, **label_options(config)}
    splits = (
        (config.train_split, config.max_train_images),
        (config.val_split, config.max_val_images),
    )
    train, val = (
        open_segmented(
            config.dataset, config.data_dir, split, max_images=most, **options
        )
        for split, most in splits
    )
    check_same_classes(train, val)
    for images in (train, val):
        check_two_classes(images)
    in_order = config.dataset == "scenes" or config.dataset.startswith("tfds:")
    return TrainImages(train, in_order), val


def pretrained_encoder(source: str, prefix: str | None = None) -> ResNet:
    """The encoder of a model: the teacher's, a segmenter's, or one alone.

    Args:
        source, prefix: As for `load_trained`.

    Raises:
        FileNotFoundError, ValueError: If it cannot be loaded, or is of another kind.
    """
    model, _ = load_trained(source, prefix=prefix)
    if isinstance(model, SlotCon):
        model = model.teacher.encoder
    elif isinstance(model, Segmenter):
        model = model.encoder
    if not isinstance(model, ResNet):
        raise SettingError(
            "`init_from` must hold a slotcon_tf.ResNet, whose stages can be dilated. "
            f"Received: {source}, a {type(model).__name__}. Build a "
            "slotcon_tf.segmentation.Segmenter with other encoders in Python."
        )
    return model
