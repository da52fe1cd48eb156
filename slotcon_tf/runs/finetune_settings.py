"""The flags of `trainers.finetune_segmentation` as what they stand for, checked."""

import contextlib
import threading

import tensorflow as tf
from absl import flags

from slotcon_tf import ResNet, SlotCon
from slotcon_tf.data.labelled import (
    LabelError,
    SegmentedImages,
    check_same_classes,
    check_two_classes,
    open_segmented,
)
from slotcon_tf.runs.label_flags import label_options
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.strategy import build_strategy, num_workers
from slotcon_tf.segmentation import Segmenter

FLAGS = flags.FLAGS
_EVALUATIONS = 10  # of a run, unless a flag says more


class UsageError(ValueError):
    """A flag cannot be used as given."""


class TrainImages:
    """Labelled images for the threads of an input pipeline.

    Args:
        images: `SegmentedImages`.
        in_order: Whether they are read from one stream, and so by one thread at a time.

    Attributes:
        error: The `LabelError` that ended the reading, or None.
    """

    def __init__(self, images: SegmentedImages, in_order: bool):
        self.images = images
        self.num_images = images.num_images
        self.error = None
        self._turn = threading.Lock() if in_order else contextlib.nullcontext()

    def load(self, index):
        try:
            with self._turn:
                return self.images.load(index)
        except LabelError as error:
            self.error = error
            raise


def strategy() -> tf.distribute.Strategy:
    """Of this host."""
    several = FLAGS.strategy == "auto" and num_workers() > 1
    if several or FLAGS.strategy == "multi_worker":
        raise UsageError(
            "Fine-tuning runs on one host. Received: --strategy=multi_worker, or a "
            "TF_CONFIG of several workers. Unset TF_CONFIG; --strategy=mirrored takes "
            "all GPUs of this host."
        )
    return build_strategy(FLAGS.strategy, FLAGS.tpu)


def scale() -> tuple[int, int]:
    """Long and short edge, pixels."""
    try:
        long_edge, short_edge = (int(edge) for edge in FLAGS.scale)
    except ValueError:
        raise UsageError(
            "--scale must be two whole numbers of pixels, the long edge and the short "
            f"one. Received: --scale={','.join(FLAGS.scale)}. Write --scale=2049,513."
        ) from None
    return long_edge, short_edge


def steps_between_evaluations() -> int:
    """A divisor of --steps."""
    steps, every = FLAGS.steps, FLAGS.eval_every_steps
    if not every:
        times = next(n for n in range(_EVALUATIONS, 0, -1) if steps % n == 0)
        return steps // times
    if steps % every:
        raise UsageError(
            "--eval_every_steps must divide --steps. Received: "
            f"--eval_every_steps={every} for --steps={steps}. Set "
            f"--steps={max(steps - steps % every, every)}."
        )
    return every


def check_batch(replicas: int) -> None:
    """Raises `UsageError` unless the replicas get the same number of images."""
    batch = FLAGS.batch_size
    if batch % replicas:
        raise UsageError(
            f"batch_size is global and must divide by the {replicas} replicas. "
            f"Received: --batch_size={batch}. "
            f"Use {max(batch - batch % replicas, replicas)}."
        )


def open_images(pixel_range=None) -> tuple[TrainImages, SegmentedImages]:
    """The images of both splits, which must have the same classes."""
    options = {"crop_size": 0, "pixel_range": pixel_range, **label_options(FLAGS)}
    splits = (
        (FLAGS.train_split, FLAGS.max_train_images),
        (FLAGS.val_split, FLAGS.max_val_images),
    )
    train, val = (
        open_segmented(FLAGS.dataset, FLAGS.data_dir, split, max_images=most, **options)
        for split, most in splits
    )
    check_same_classes(train, val)
    for images in (train, val):
        check_two_classes(images)
    return TrainImages(train, train.in_order), val


def pretrained() -> ResNet:
    """The encoder of --init_from: the teacher's, a segmenter's, or one alone."""
    model, _ = load_trained(FLAGS.init_from, prefix=FLAGS.prefix)
    if isinstance(model, SlotCon):
        model = model.teacher.encoder
    elif isinstance(model, Segmenter):
        model = model.encoder
    if not isinstance(model, ResNet):
        raise UsageError(
            "--init_from must hold a slotcon_tf.ResNet, whose stages can be dilated. "
            f"Received: {FLAGS.init_from}, a {type(model).__name__}. Build a "
            "slotcon_tf.segmentation.Segmenter with other encoders in Python."
        )
    return model
