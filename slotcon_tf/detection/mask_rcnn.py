"""MaskRCNN: objects as boxes, classes and masks, and how they are learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.detection.anchors import RATIOS, SIZES, STRIDES, level_anchors
from slotcon_tf.detection.boxes import ROI_WEIGHTS, decode, encode, pairwise_iou
from slotcon_tf.detection.detections import Detections, select_detections
from slotcon_tf.detection.heads import BoxHead, MaskHead, ProposalHead
from slotcon_tf.detection.losses import NAMES, box_losses, mask_loss, proposal_losses
from slotcon_tf.detection.mask_targets import mask_targets
from slotcon_tf.detection.matching import FOREGROUND, IGNORED, match
from slotcon_tf.detection.proposals import select_proposals
from slotcon_tf.detection.pyramid import LEVELS, FeaturePyramid
from slotcon_tf.detection.roi_align import pool_regions
from slotcon_tf.detection.sampling import Choice, gathered, random_choice, sample
from slotcon_tf.devices import at_least_float32
from slotcon_tf.images.statistics import ImageStatistics, statistics_of
from slotcon_tf.training import replicas
from slotcon_tf.training.normalization import careful_sums
from slotcon_tf.types import Tensor

BOX_BINS, MASK_BINS = 7, 14
MASK_SIZE = 2 * MASK_BINS
_POSITIVE_ANCHORS, _FOREGROUND_REGIONS = 0.5, 0.25  # shares of what is sampled
_ANCHOR_LIMITS, _REGION_LIMITS = (0.3, 0.7), (0.5, 0.5)  # IoU
_UNIT = (0.0, 0.0, 1.0, 1.0)  # a box in place of one that is not there


class Regions(NamedTuple):
    """What the heads learn from: regions of all images, foreground first in each.

    Attributes:
        boxes: (N * R, 4).
        images: int32 (N * R,), which image each is of.
        classes: int32 (N * R,), `num_classes` for the background.
        objects: int32 (N * R,), the ground truth of its image that each matches.
        goals: (N * R, 4), its box; of the background anything finite.
        valid: bool (N * R,), regions that are there.

    Example:
        >>> Regions._fields[:2]
        ('boxes', 'images')
    """

    boxes: Tensor
    images: Tensor
    classes: Tensor
    objects: Tensor
    goals: Tensor
    valid: Tensor


@keras.saving.register_keras_serializable(package="slotcon_tf")
class MaskRCNN(keras.Model):
    """Mask R-CNN on a feature pyramid; without masks a Faster R-CNN.

    Args:
        encoder: Keras model with `pyramid_outputs` P2 .. P5 of strides 4 .. 32, as
            `slotcon_tf.ResNet` has them.
        class_names: Names of the classes, in the order of their numbers.
        channels: Of the pyramid and of the heads' convolutions.
        units: Of the box head's dense layer.
        masks: Whether there is a mask head.
        proposals: Boxes of a level before suppression, and of all after it, in
            training.
        test_proposals: The same in inference.
        anchors_per_image: Sampled for the proposals' losses.
        regions_per_image: Sampled for the heads' losses.
        max_detections: Of an image.
        short_edge, long_edge: Pixels that the edges of images are brought to where it
            is measured and served; kept for who does so, see `Detector`.
        fixed_shapes: Whether training keeps to shapes that XLA and TPUs need, as
            `compile(jit_compile=True)` does: regions are pooled as products of dense
            matrices over whole maps, and the mask head has rows for all regions that
            might be foreground. The numbers are the same, but for mask targets in
            which a line runs exactly between two cells, see `mask_targets`.
        seed: Of the samplers, which draw anew for every step and image.

    Call arguments:
        inputs: Normalised images (N, H, W, 3); H and W are multiples of 32.
        sizes: Integers (N, 2): height and width of each image without its padding.
            None: all of it.

    Returns:
        `Detections` with a batch axis, boxes in pixels of the input.

    Raises:
        ValueError: If the encoder has no such pyramid.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> sizes = {"channels": 8, "units": 16, "max_detections": 3}
        >>> model = MaskRCNN(encoder, class_names=("cat", "dog"), **sizes)
        >>> found = model(tf.zeros((1, 64, 64, 3)))
        >>> found.boxes.shape
        TensorShape([1, 3, 4])

    Reference: He et al. 2017 (arXiv 1703.06870); Lin et al. 2017 (arXiv 1612.03144);
    the settings of Wen et al. 2022 (arXiv 2205.15288), section 4.1, in detectron2.
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

    skip_nonfinite = False  # what callbacks ask of a model: it stops on the first NaN

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def statistics(self) -> ImageStatistics:
        """What images are normalised with: as the encoder was pretrained."""
        return statistics_of(self.encoder)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.trackers.values())

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

    def _key(self, image):
        """Of one image of the global batch in this step."""
        fold = tf.random.experimental.stateless_fold_in  # pyright: ignore[reportAttributeAccessIssue]
        key = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(self.step, tf.int64)])
        return fold(key, tf.cast(image, tf.int64), alg="philox")

    def _choices(self, image: Tensor) -> tuple[tuple[Choice, Choice], ...]:
        """Of anchors and of regions; of the foreground and of the background."""
        fold = tf.random.experimental.stateless_fold_in  # pyright: ignore[reportAttributeAccessIssue]
        key = self._key(image)
        kinds = [random_choice(fold(key, kind, alg="philox")) for kind in range(4)]
        return (kinds[0], kinds[1]), (kinds[2], kinds[3])

    def compute_losses(
        self,
        batch: dict[str, Tensor],
        training: bool = True,
        choices: Callable[[Tensor], Any] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of a batch, as this replica's shares of the global ones.

        Args:
            batch: Dict of `images` (N, H, W, 3), normalised and padded; `sizes` ints
                (N, 2), height and width without padding; and for at most G objects of
                an image `boxes` (N, G, 4) in pixels, `classes` int32 (N, G), `valid`
                bool (N, G), and, for masks, their polygons' edges `starts` and `ends`
                (N, G, E, 2) and `parts` int32 (N, G, E), see `mask_targets`; a polygon
                has three edges at least. N is static.
            training: Whether batch statistics are used and recorded.
            choices: Function of an image's number in the global batch that returns the
                choices of anchors and of regions, in place of random ones.

        Returns:
            Tuple of their sum and a dict of the losses by `loss_names`.
        """
        with careful_sums():
            return self._shares(batch, training, choices or self._choices)

    def _shares(self, batch, training, choices):
        maps = self.feature_maps(batch["images"], training)
        anchors, logits, deltas = self._guesses(maps)
        all_anchors, all_logits = tf.concat(anchors, 0), tf.concat(logits, 1)
        first = replicas.replica_index() * batch["images"].shape[0]
        chosen = [choices(first + i) for i in range(batch["images"].shape[0])]
        of_anchors, of_regions = zip(*chosen, strict=True)
        truths = [
            {name: batch[name][i] for name in ("boxes", "classes", "valid")}
            for i in range(len(chosen))
        ]
        with tf.name_scope("proposals"):
            found = self._proposed(
                anchors, logits, deltas, batch["sizes"], self.proposals
            )
        with tf.name_scope("regions"):
            regions = self._sampled(found, batch, of_regions)
        number = batch["images"].shape[0] * replicas.num_replicas()
        sampled = self.anchors_per_image * number
        with tf.name_scope("anchors"):
            goals = (
                self._anchor_goals(all_anchors, *one)
                for one in zip(truths, of_anchors, strict=True)
            )
            goals = (tf.stack(x) for x in zip(*goals, strict=True))
            sums = proposal_losses(all_logits, tf.concat(deltas, 1), *goals)
            losses = [part / sampled for part in sums]
        losses += self._box_losses(maps, regions, training)
        if self.mask_head is not None:
            losses.append(self._mask_loss(maps, regions, batch, training))
        return tf.add_n(losses), dict(zip(self.loss_names, losses, strict=True))

    def _anchor_goals(self, anchors, truth, choose):
        """Deltas (A, 4) to learn, and bool (A,), which anchors are sampled."""
        goals, valid = tf.cast(truth["boxes"], anchors.dtype), truth["valid"]
        goals = tf.where(valid[:, None], goals, tf.constant(_UNIT, anchors.dtype))
        index, label = match(
            pairwise_iou(goals, anchors), *_ANCHOR_LIMITS, valid=valid, keeps_best=True
        )
        positive, negative = sample(
            label, self.anchors_per_image, _POSITIVE_ANCHORS, choose
        )
        return encode(anchors, tf.gather(goals, index)), positive, negative

    def _sampled(self, found, batch, chosen) -> Regions:
        boxes, _, there = found  # (N, P, ...)
        goals, valid = tf.cast(batch["boxes"], boxes.dtype), batch["valid"]
        # What is to be found is proposed as well: the heads learn from the start.
        boxes = tf.concat([boxes, goals], axis=1)
        there = tf.concat([there, valid], axis=1)
        index, label = match(pairwise_iou(goals, boxes), *_REGION_LIMITS, valid=valid)
        label = tf.where(there, label, tf.constant(IGNORED, label.dtype))
        number, share = self.regions_per_image, _FOREGROUND_REGIONS
        taken = [
            sample(one, number, share, choose)
            for one, choose in zip(tf.unstack(label), chosen, strict=True)
        ]
        first, second = (tf.stack(x) for x in zip(*taken, strict=True))
        places, there = gathered(first, second, number)

        def at(values, places):  # (N, M, ...), (N, R)
            return tf.gather(values, places, batch_dims=1)

        boxes, index = at(boxes, places), at(index, places)
        foreground = there & (at(label, places) == FOREGROUND)
        classes = at(tf.cast(batch["classes"], tf.int32), index)
        unit = tf.constant(_UNIT, boxes.dtype)
        parts = {
            "boxes": tf.where(there[..., None], boxes, unit),
            "images": tf.repeat(tf.range(len(chosen))[:, None], number, axis=1),
            "classes": tf.where(foreground, classes, self.num_classes),
            "objects": index,
            "goals": tf.where(foreground[..., None], at(goals, index), unit),
            "valid": there,
        }
        rows = len(chosen) * number
        return Regions(
            **{name: tf.reshape(x, [rows, *x.shape[2:]]) for name, x in parts.items()}
        )

    def _box_losses(self, maps, regions, training):
        with tf.name_scope("box_pooling"):
            pooled = self._pooled(maps, regions.boxes, regions.images, BOX_BINS)
        logits, deltas = self.box_head(pooled, training=training, valid=regions.valid)
        with tf.name_scope("box_losses"):
            logits, deltas = at_least_float32(logits), at_least_float32(deltas)
            goals = encode(regions.boxes, regions.goals, ROI_WEIGHTS)
            sums = box_losses(logits, deltas, regions.classes, goals, regions.valid)
            count = _global_count(regions.valid, logits.dtype)
            return [part / count for part in sums]

    def _pooled(self, maps, boxes, images, bins):
        return pool_regions(
            maps, boxes, images, bins=bins, fixed_shapes=self.fixed_shapes
        )

    def _mask_loss(self, maps, regions, batch, training):
        assert self.mask_head is not None
        foreground = regions.valid & (regions.classes < self.num_classes)
        most = int(self.regions_per_image * _FOREGROUND_REGIONS)
        images = batch["images"].shape[0]
        if self.fixed_shapes:
            # Foreground comes first in every image.
            per_image = tf.range(images)[:, None] * self.regions_per_image
            places = tf.reshape(per_image + tf.range(most), [-1])
        else:
            places = tf.cast(tf.where(foreground)[:, 0], tf.int32)
            # One row at least, which does not count, where there is no foreground.
            places = tf.pad(places, [[0, tf.cast(tf.size(places) == 0, tf.int32)]])
        own = Regions(*(tf.gather(x, places) for x in regions))
        valid = tf.gather(foreground, places)
        with tf.name_scope("mask_pooling"):
            pooled = self._pooled(maps, own.boxes, own.images, MASK_BINS)
        logits = self.mask_head(pooled, training=training, valid=valid)
        with tf.name_scope("mask_losses"):
            logits = at_least_float32(logits)
            index = tf.stack([own.images, own.objects], axis=1)
            starts, ends, parts = (
                tf.gather_nd(batch[x], index) for x in ("starts", "ends", "parts")
            )
            edges = batch["parts"].shape[-1]
            num_parts = max(edges // 3, 1) if self.fixed_shapes else None
            targets = mask_targets(starts, ends, parts, own.boxes, MASK_SIZE, num_parts)
            classes = tf.where(valid, own.classes, 0)
            cells = _global_count(valid, logits.dtype) * MASK_SIZE**2
            return mask_loss(logits, classes, targets, valid) / cells

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on a batch as `compute_losses` takes it."""
        with tf.GradientTape() as tape:
            loss, found = self.compute_losses(data)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)  # of this step
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.step.assign(self.step + 1)
        return {**self._track(loss, found), "learning_rate": rate}

    def test_step(self, data: Any) -> dict[str, Any]:
        """Losses of a batch with moving statistics."""
        return self._track(*self.compute_losses(data, training=False))

    def _track(self, loss, found):
        total = replicas.sum_over_replicas({"loss": loss, **found})
        for name, tracker in self.trackers.items():
            tracker.update_state(total[name])
        return {name: tracker.result() for name, tracker in self.trackers.items()}

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
    def from_config(cls, config: dict[str, Any]) -> MaskRCNN:
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def _global_count(valid: Tensor, dtype: Any) -> Tensor:
    """How many of all replicas, 1 at least."""
    count = tf.math.count_nonzero(valid, dtype=dtype)
    return tf.maximum(replicas.sum_over_replicas(count), 1)
