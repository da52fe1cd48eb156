"""What a network says of whole images of any size: maps, slots, groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.encoders.contract import as_encoder, loading
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.method.objective import active_slots, l2_normalize
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.method.slots import unit_slots
from slotcon_tf.method.upsampled import upsampled_argmax


class Inference:
    """A trained network over images, without batch statistics.

    Args:
        model: A `SlotCon`, or an encoder alone: images to a map.
        which: "teacher" or "student" of a `SlotCon`.
        scale: Factor by which images are resized first; the larger, the finer the map.

    Raises:
        ValueError: If it is another model or network, or the scale is not positive.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> inference, images = Inference(model), np.zeros((1, 48, 64, 3), np.uint8)
        >>> vectors, active, groups = inference.slots(images)
        >>> vectors.shape, active.shape, groups.shape
        ((1, 3, 4), (1, 3), (1, 48, 64))
    """

    def __init__(
        self, model: keras.Model, which: str = "teacher", scale: float = 1.0
    ) -> None:
        if not scale > 0:
            raise ValueError(
                f"scale must be positive. Received: scale={scale}. Take 1 for an "
                "image's own size."
            )
        self.grouping = isinstance(model, SlotCon)
        self.scale = scale
        self._statistics = statistics_of(model)
        if self.grouping:
            self.num_prototypes = model.num_prototypes
            self._temperature = model.teacher_temperature
            self._network = model.network(which)
        else:
            with loading():  # it is trained
                self._network = as_encoder(model)
        images = tf.TensorSpec([None, None, None, 3], tf.uint8)
        self._map = tf.function(self._traced_map, [images], autograph=False)
        self._groups = tf.function(self._traced_groups, [images], autograph=False)
        self._slots = tf.function(self._traced_slots, [images], autograph=False)
        self._outputs = tf.function(self._traced_outputs, [images], autograph=False)

    def maps(self, images: np.ndarray) -> np.ndarray:
        """The encoder's last map.

        Args:
            images: uint8 (B, height, width, 3).

        Returns:
            float32 (B, H, W, C).
        """
        return self._map(images).numpy()

    def pooled(self, images: np.ndarray) -> np.ndarray:
        """The mean of `maps` over positions: float32 (B, C)."""
        return self.maps(images).mean(axis=(1, 2))

    def groups(self, images: np.ndarray) -> np.ndarray:
        """The winning prototype at every pixel.

        Args:
            images: uint8 (B, height, width, 3).

        Returns:
            int32 (B, height, width); the logits are upsampled bilinearly before the
            argmax.

        Raises:
            ValueError: If the model is an encoder alone.
        """
        self.need_groups()
        return self._groups(images).numpy()

    def slots(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slots of all prototypes, and the winning prototype at every pixel.

        Returns:
            Tuple of vectors float32 (B, K, D) of length 1, active bool (B, K), and the
            groups of `groups`.

        Raises:
            ValueError: If the model is an encoder alone.
        """
        self.need_groups()
        return tuple(x.numpy() for x in self._slots(images))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All that the network says.

        Args:
            images: uint8 (B, height, width, 3).

        Returns:
            Dict of float32 `map` (B, H, W, C) and, of a `SlotCon`, `assignment_logits`
            (B, H, W, K) and `similarity` (B, K), the cosine of each prototype and the
            slot that it pools.
        """
        return {name: x.numpy() for name, x in self._outputs(images).items()}

    def need_groups(self) -> None:
        """Raises `ValueError` if the model has no prototypes."""
        if not self.grouping:
            raise ValueError(
                "Groups need a whole SlotCon model. Received: an encoder alone, which "
                "has no prototypes. Take task=linear, knn or classification."
            )

    def _prepared(self, images):
        images = tf.cast(images, tf.float32)
        if self.scale != 1.0:
            size = tf.cast(tf.shape(images)[1:3], tf.float32) * self.scale
            size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
            images = tf.image.resize(images, size, "bicubic")
        return self._statistics.normalize(images)

    def _call(self, images):
        """The network's dict; of an encoder alone, of its map only."""
        found = self._network(self._prepared(images), training=False)
        return found if self.grouping else {"map": found}

    def _pooled(self, found):
        """Slots of length 1, (B, K, D)."""
        logits = found["assignment_logits"]
        return unit_slots(found["projected"], logits, self._temperature)

    def _traced_map(self, images):
        return tf.cast(self._call(images)["map"], tf.float32)

    def _traced_groups(self, images):
        logits = self._call(images)["assignment_logits"]
        return upsampled_argmax(logits, tf.shape(images)[1:3])

    def _traced_slots(self, images):
        found = self._call(images)
        logits = found["assignment_logits"]
        groups = upsampled_argmax(logits, tf.shape(images)[1:3])
        return self._pooled(found), active_slots(logits), groups

    def _traced_outputs(self, images):
        found = self._call(images)
        kept = {"map": tf.cast(found["map"], tf.float32)}
        if self.grouping:
            prototypes = l2_normalize(self._network.grouping.prototypes)  # (K, D)
            similarity = tf.einsum("bkd,kd->bk", self._pooled(found), prototypes)
            logits = tf.cast(found["assignment_logits"], tf.float32)
            kept |= {"assignment_logits": logits, "similarity": similarity}
        return kept


def same_size_batches(
    examples: Iterable[tuple], batch_size: int
) -> Iterator[list[np.ndarray]]:
    """Batches of neighbours of one size.

    Args:
        examples: Iterable of tuples whose first entry is an image (height, width, 3).
        batch_size: Largest number of examples in a batch.

    Yields:
        Lists, as long as an example, of arrays with a batch axis.

    Example:
        >>> wide, high = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
        >>> examples = [(wide, 0), (wide, 1), (high, 2)]
        >>> [labels.tolist() for _, labels in same_size_batches(examples, batch_size=8)]
        [[0, 1], [2]]
    """
    for _, alike in itertools.groupby(examples, key=lambda e: e[0].shape):
        while some := list(itertools.islice(alike, batch_size)):
            yield [np.stack(column) for column in zip(*some, strict=True)]
