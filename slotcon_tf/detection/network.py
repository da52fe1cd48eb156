"""DetectorNetwork: the layers of a Mask R-CNN, and what they find in images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.detection.anchors import RATIOS, SIZES, STRIDES, level_anchors
from slotcon_tf.detection.boxes import ROI_WEIGHTS, decode
from slotcon_tf.detection.detections import Detections, select_detections
from slotcon_tf.detection.heads import BoxHead, MaskHead, ProposalHead
from slotcon_tf.detection.losses import NAMES
from slotcon_tf.detection.proposals import select_proposals
from slotcon_tf.detection.pyramid import LEVELS, FeaturePyramid
from slotcon_tf.detection.roi_align import pool_regions
from slotcon_tf.devices import at_least_float32
from slotcon_tf.images.statistics import ImageStatistics, statistics_of
from slotcon_tf.types import Tensor

BOX_BINS, MASK_BINS = 7, 14
MASK_SIZE = 2 * MASK_BINS


class DetectorNetwork(keras.Model):
    """The layers of a Mask R-CNN and its settings; `MaskRCNN` learns, too.

    Args, call arguments, returns, raises: See `MaskRCNN`.

    Example:
        >>> from slotcon_tf.detection import MaskRCNN
        >>> issubclass(MaskRCNN, DetectorNetwork)
        True
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        class_names: Sequence[str],
        channels: int = 256,
        units: int = 1024,
        masks: bool = True,
        proposals: tuple[int, int] = (2000, 1000),
        test_proposals: tuple[int, int] = (1000, 1000),
        anchors_per_image: int = 256,
        regions_per_image: int = 512,
        max_detections: int = 100,
        short_edge: int = 800,
        long_edge: int = 1333,
        fixed_shapes: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        stages = getattr(encoder, "pyramid_outputs", None) or {}
        if not set(LEVELS) <= set(stages):
            raise ValueError(
                "The encoder must have `pyramid_outputs` P2 to P5, as "
                f"slotcon_tf.ResNet has. Received: {encoder.name!r} with "
                f"{sorted(stages) or 'none'}."
            )
        self.encoder = encoder
        self.class_names = tuple(class_names)
        self.channels = channels
        self.units = units
        self.masks = masks
        self.proposals = tuple(proposals)
        self.test_proposals = tuple(test_proposals)
        self.anchors_per_image = anchors_per_image
        self.regions_per_image = regions_per_image
        self.max_detections = max_detections
        self.short_edge = short_edge
        self.long_edge = long_edge
        self.fixed_shapes = fixed_shapes
        self.seed = seed
        own: dict[str, Any] = {"dtype": self.dtype_policy}
        self.pyramid = FeaturePyramid(channels, name="pyramid", **own)
        self.pyramid.build({level: stages[level].shape for level in LEVELS})
        self.proposal_head = ProposalHead(
            channels, len(RATIOS), name="proposal_head", **own
        )
        self.proposal_head.build(None)
        classes = {"num_classes": self.num_classes, "channels": channels}
        self.box_head = BoxHead(units=units, name="box_head", **classes, **own)
        self.box_head.build((None, BOX_BINS, BOX_BINS, channels))
        self.mask_head = None
        if masks:
            self.mask_head = MaskHead(name="mask_head", **classes, **own)
            self.mask_head.build((None, MASK_BINS, MASK_BINS, channels))
        model = keras.Model(encoder.inputs, {name: stages[name] for name in LEVELS})
        # In a function, so that Keras does not track the layers once more.
        self._stages = lambda: model
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )
        names = NAMES if masks else NAMES[:-1]
        self.loss_names = tuple(f"{name}_loss" for name in names)
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("loss", *self.loss_names)
        }
        self.built = True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def statistics(self) -> ImageStatistics:
        """What images are normalised with: as the encoder was pretrained."""
        return statistics_of(self.encoder)

    def call(
        self, inputs: Tensor, sizes: Tensor | None = None, training: bool = False
    ) -> Detections:
        del training  # it is inference
        return self.detect(inputs, sizes)[0]

    def feature_maps(self, images: Tensor, training: bool) -> dict[str, Tensor]:
        """P2 .. P6 of normalised images."""
        stages = self._stages()(images, training=training)
        return self.pyramid(stages, training=training)

    def _guesses(
        self, maps: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Anchors (A_l, 4), logits (N, A_l) and deltas (N, A_l, 4) of each level."""
        levels = list(maps.values())
        logits, deltas = self.proposal_head(levels)
        logits = [at_least_float32(x) for x in logits]
        shapes = [ops.shape(x) for x in levels]
        anchors = [
            level_anchors(shape[1], shape[2], stride, size, dtype=logits[0].dtype)
            for shape, stride, size in zip(shapes, STRIDES, SIZES, strict=True)
        ]
        return anchors, logits, [at_least_float32(x) for x in deltas]

    def _proposed(self, anchors, logits, deltas, sizes, counts):
        """Boxes (N, P, 4), logits and whether they are there (N, P)."""
        boxes = [
            tf.stop_gradient(decode(a[None], d))
            for a, d in zip(anchors, deltas, strict=True)
        ]
        scores = [tf.stop_gradient(x) for x in logits]
        return select_proposals(boxes, scores, sizes, before=counts[0], after=counts[1])

    def _pooled(self, maps, boxes, images, bins):
        return pool_regions(
            maps, boxes, images, bins=bins, fixed_shapes=self.fixed_shapes
        )

    def detect(
        self, images: Tensor, sizes: Tensor | None = None
    ) -> tuple[Detections, Tensor | None]:
        """Objects in images, with moving statistics.

        Args:
            images, sizes: As `call` takes them; N is static.

        Returns:
            Tuple of `Detections` with a batch axis, and the masks of their classes
            (N, D, 28, 28), probabilities within each box; None without a mask head.
        """
        if sizes is None:
            size = tf.stack(ops.shape(images)[1:3])
            sizes = tf.tile(size[None], [images.shape[0], 1])
        maps = self.feature_maps(images, training=False)
        anchors, logits, deltas = self._guesses(maps)
        found = self._proposed(anchors, logits, deltas, sizes, self.test_proposals)
        detections = self._detected(maps, found, sizes)
        return detections, self._masks(maps, detections)

    def _detected(self, maps, found, sizes):
        boxes, _, there = found
        count, number = there.shape
        flat, images = tf.reshape(boxes, (-1, 4)), tf.repeat(tf.range(count), number)
        pooled = self._pooled(maps, flat, images, BOX_BINS)
        scores, moves = self.box_head(pooled, training=False)
        scores = tf.nn.softmax(at_least_float32(scores))[:, :-1]
        boxes = decode(flat, at_least_float32(moves), ROI_WEIGHTS)
        detected = [
            select_detections(*one, valid=valid, count=self.max_detections)
            for *one, valid in zip(
                tf.split(boxes, count),
                tf.split(scores, count),
                tf.unstack(tf.convert_to_tensor(sizes)),
                tf.unstack(there),
                strict=True,
            )
        ]
        return Detections(*(tf.stack(x) for x in zip(*detected, strict=True)))

    def _masks(self, maps, found):
        if self.mask_head is None:
            return None
        count = found.boxes.shape[0]
        images = tf.repeat(tf.range(count), self.max_detections)
        boxes = tf.reshape(found.boxes, (-1, 4))
        pooled = self._pooled(maps, boxes, images, MASK_BINS)
        logits = at_least_float32(self.mask_head(pooled, training=False))
        channels = tf.transpose(logits, (0, 3, 1, 2))
        own = tf.gather(channels, tf.reshape(found.classes, [-1]), batch_dims=1)
        shape = (count, self.max_detections, MASK_SIZE, MASK_SIZE)
        return tf.reshape(tf.sigmoid(own), shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "class_names": list(self.class_names),
            "channels": self.channels,
            "units": self.units,
            "masks": self.masks,
            "proposals": list(self.proposals),
            "test_proposals": list(self.test_proposals),
            "anchors_per_image": self.anchors_per_image,
            "regions_per_image": self.regions_per_image,
            "max_detections": self.max_detections,
            "short_edge": self.short_edge,
            "long_edge": self.long_edge,
            "fixed_shapes": self.fixed_shapes,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)
