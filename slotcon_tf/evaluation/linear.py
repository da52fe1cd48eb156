"""Linear segmentation: a 1x1 convolution on a frozen map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.data.labelled import VOID, LabelError, SegmentedImages
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.metrics import confusion_matrix
from slotcon_tf.method.upsampled import upsampled_argmax

STANDARD_EPSILON = 1e-6  # a channel that is always 0 stays 0


@dataclass(frozen=True)
class LinearSettings:
    """How the classifier is trained.

    Attributes:
        steps: Of Adam.
        batch_size: Images per step.
        learning_rate: Of Adam.
        label_stride: Every so many pixels, in the middle of a block, a label is trained
            on; evaluation sees all pixels.
        memory_gb: Maps are kept in float16; of more images, evenly spaced ones are.
        seed: Of the first weights and of the images' order.

    Example:
        >>> LinearSettings(steps=100).batch_size
        32
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    label_stride: int = 8
    memory_gb: float = 4.0
    seed: int = 0


class LinearSegmenter:
    """A 1x1 convolution on standardised features, logits resized bilinearly.

    Args:
        mean, std: float32 (C,), of the training maps' channels.
        kernel: float32 (C, classes).
        bias: float32 (classes,).

    Example:
        >>> mean, std = np.zeros(2, np.float32), np.ones(2, np.float32)
        >>> segmenter = LinearSegmenter(mean, std, np.eye(2, dtype=np.float32), mean)
        >>> maps = np.float32([[[[1, 0], [0, 1]]]])  # (1, 1, 2, 2)
        >>> segmenter(maps, (1, 4)).tolist()
        [[[0, 0, 1, 1]]]
    """

    def __init__(
        self, mean: np.ndarray, std: np.ndarray, kernel: np.ndarray, bias: np.ndarray
    ) -> None:
        # Standardisation and classifier are one affine map.
        self.kernel = tf.constant(kernel / std[:, None])
        self.bias = tf.constant(bias - (mean / std) @ kernel)

    def __call__(self, maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Classes of pixels.

        Args:
            maps: float32 (B, H, W, C).
            size: Height and width of the result.

        Returns:
            int32 (B, height, width).
        """
        logits = tf.constant(maps) @ self.kernel + self.bias
        return upsampled_argmax(logits, size).numpy()


def fit_linear(
    inference: Inference,
    data: SegmentedImages,
    settings: LinearSettings,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LinearSegmenter:
    """Trains a `LinearSegmenter` on a labelled set.

    Args:
        inference: An `Inference`.
        data: A `SegmentedImages` whose images have one size.
        settings: `LinearSettings`.
        progress: Function of an iterable that shows how far it is.

    Returns:
        A `LinearSegmenter`.

    Raises:
        LabelError: If images are of several sizes, or no pixel has a label.

    Example:
        >>> from slotcon_tf import backbone
        >>> image, ids = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
        >>> read = lambda number: (image, ids, "a.png")
        >>> data = SegmentedImages("mine", read, 2, table=None)
        >>> inference = Inference(backbone("resnet10", width=8))
        >>> settings = LinearSettings(steps=1, batch_size=2)
        >>> segmenter = fit_linear(inference, data, settings)
        >>> segmenter(inference.maps(image[None]), (64, 64)).shape
        (1, 64, 64)
    """
    maps, labels = _training_set(inference, data, settings, progress)
    if not (labels != VOID).any():
        raise LabelError(f"{data} must have labels that are not void. Received: none.")
    mean = maps.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)  # (C,)
    std = np.sqrt(
        np.mean([np.square(m - mean).mean(axis=(0, 1)) for m in maps], axis=0)
    )
    std = (std + STANDARD_EPSILON).astype(np.float32)

    keras.utils.set_random_seed(settings.seed)
    layer = keras.layers.Dense(data.num_classes, dtype="float32")
    layer.build((None, maps.shape[-1]))
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    optimizer.build(layer.trainable_variables)
    size = labels.shape[1:]

    @tf.function
    def step(maps, labels):
        features = (tf.cast(maps, tf.float32) - mean) / std
        labels = tf.cast(labels, tf.int32)
        valid = labels != VOID
        with tf.GradientTape() as tape:
            logits = tf.image.resize(layer(features), size)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.where(valid, labels, 0), logits
            )
            weight = tf.cast(valid, tf.float32)
            loss = tf.math.divide_no_nan(
                tf.reduce_sum(losses * weight), tf.reduce_sum(weight)
            )
        gradients = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, layer.trainable_variables, strict=True)
        )

    for some in progress(_batches(len(maps), settings)):
        step(maps[some], labels[some])
    kernel, bias = (v.numpy() for v in layer.trainable_variables)
    return LinearSegmenter(mean, std, kernel, bias)


def linear_confusions(
    inference: Inference,
    segmenter: LinearSegmenter,
    examples: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    *,
    batch_size: int = 16,
) -> np.ndarray:
    """Pixels by true class and predicted class, of every image by itself.

    Args:
        inference: An `Inference`.
        segmenter: A `LinearSegmenter`.
        examples: Iterable of images and classes, as of `SegmentedImages`.
        num_classes: C.
        batch_size: Images at once.

    Returns:
        int64 (N, C * C).

    Example:
        >>> from slotcon_tf import backbone
        >>> inference = Inference(backbone("resnet10", width=8))
        >>> mean, kernel = np.zeros(64, np.float32), np.zeros((64, 2), np.float32)
        >>> segmenter = LinearSegmenter(mean, mean + 1, kernel, np.float32([1, 0]))
        >>> example = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.uint8)
        >>> linear_confusions(inference, segmenter, [example], 2).tolist()
        [[0, 0, 3072, 0]]
    """
    rows = []
    for images, masks in same_size_batches(examples, batch_size):
        predicted = segmenter(inference.maps(images), masks.shape[1:])
        rows += [
            confusion_matrix(mask, found, num_classes, num_classes, VOID).ravel()
            for mask, found in zip(masks, predicted, strict=True)
        ]
    return np.stack(rows)


def _training_set(inference, data, settings, progress):
    """Maps float16 (N, H, W, C) and labels uint8 (N, h, w)."""
    image, _ = data.load(0)
    first = inference.maps(image[None])
    most = int(settings.memory_gb * 2**30 / (2 * first.size))
    numbers = np.linspace(0, len(data) - 1, max(1, min(len(data), most))).astype(int)
    stride = settings.label_stride
    maps, labels = [], []

    def examples():
        for number in progress(numbers):
            found, mask = data.load(number)
            if found.shape != image.shape:
                raise LabelError(
                    "A linear classifier is trained on images of one size. Received: "
                    f"{image.shape[1::-1]} and {found.shape[1::-1]} pixels in {data}. "
                    "Set `crop_size`, to 320 for example."
                )
            yield found, mask

    for images, masks in same_size_batches(examples(), settings.batch_size):
        maps.append(inference.maps(images).astype(np.float16))
        labels.append(masks[:, stride // 2 :: stride, stride // 2 :: stride])
    return np.concatenate(maps), np.concatenate(labels)


def _batches(count, settings):
    """Indices of each step's images: whole permutations, one after another."""
    rng = np.random.default_rng(settings.seed)
    need = settings.steps * settings.batch_size
    orders = [rng.permutation(count) for _ in range(-(-need // count))]
    return np.concatenate(orders)[:need].reshape(settings.steps, settings.batch_size)
