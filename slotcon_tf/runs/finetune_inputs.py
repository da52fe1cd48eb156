"""What a fine-tuning begins with: labelled images, and a pretrained encoder."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np

from slotcon_tf.data.labelled import (
    LabelError,
    SegmentedImages,
    check_same_classes,
    check_two_classes,
    open_segmented,
)
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import PixelRange
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.label_settings import label_options
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError


class TrainImages:
    """Labelled images for the threads of an input pipeline.

    All but `load` is as the images themselves have it.

    Args:
        images: `SegmentedImages`, `ObjectImages`; if it is read in order, then by one
            thread at a time.

    Attributes:
        error: The `LabelError` that ended the reading, or None.

    Example:
        >>> import types
        >>> images = types.SimpleNamespace(num_images=3, in_order=True, load=abs)
        >>> TrainImages(images).load(2)
        2
    """

    def __init__(self, images: Any) -> None:
        self.images = images
        self.num_images: int = images.num_images
        self.error: LabelError | None = None
        self._turn = threading.Lock() if images.in_order else contextlib.nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["images"], name)

    def load(self, index: int) -> tuple[np.ndarray, Any]:
        """An image uint8 (height, width, 3), and its labels."""
        try:
            with self._turn:
                return self.images.load(index)
        except LabelError as error:
            self.error = error
            raise


def open_images(
    config: FinetuneConfig, pixel_range: PixelRange | None = None
) -> tuple[TrainImages, SegmentedImages]:
    """The images of both splits, which must have the same classes.

    Args:
        config: Which they are.
        pixel_range: That of the pretrained encoder.

    Raises:
        LabelError, OSError: If they cannot be used.

    Example:
        >>> open_images(FinetuneConfig(data_dir="nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    options = {"crop_size": 0, "pixel_range": pixel_range, **label_options(config)}
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
    return TrainImages(train), val


def pretrained_encoder(source: str, prefix: str | None = None) -> ResNet:
    """The encoder of a model: the teacher's, or one alone (a segmenter's, too).

    Args:
        source, prefix: As for `load_trained`.

    Raises:
        FileNotFoundError, ValueError: If it cannot be loaded, or is of another kind.

    Example:
        >>> pretrained_encoder("runs/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No pretrained model: runs/nowhere...
    """
    model, _ = load_trained(source, prefix=prefix)
    if isinstance(model, SlotCon):
        model = model.teacher.encoder
    if not isinstance(model, ResNet):
        raise SettingError(
            "`init_from` must hold a slotcon_tf.ResNet, whose stages are known. "
            f"Received: {source}, a {type(model).__name__}. Build a "
            "slotcon_tf.segmentation.Segmenter or a slotcon_tf.detection.MaskRCNN "
            "around other encoders in Python."
        )
    return model
