"""MaskRCNN: objects as boxes, classes and masks, and how they are learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from slotcon_tf.detection.boxes import ROI_WEIGHTS, encode
from slotcon_tf.detection.goals import (
    FOREGROUND_SHARE,
    Regions,
    anchor_goals,
    sampled_regions,
)
from slotcon_tf.detection.losses import box_losses, mask_loss, proposal_losses
from slotcon_tf.detection.mask_targets import mask_targets
from slotcon_tf.detection.network import (
    BOX_BINS,
    MASK_BINS,
    MASK_SIZE,
    DetectorNetwork,
)
from slotcon_tf.detection.sampling import Choice, random_choice
from slotcon_tf.devices import at_least_float32
from slotcon_tf.training import replicas
from slotcon_tf.training.normalization import careful_sums
from slotcon_tf.types import Tensor


@keras.saving.register_keras_serializable(package="slotcon_tf")
class MaskRCNN(DetectorNetwork):
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

    skip_nonfinite = False  # what callbacks ask of a model: it stops on the first NaN

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.trackers.values())

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
        with tf.name_scope("proposals"):
            found = self._proposed(
                anchors, logits, deltas, batch["sizes"], self.proposals
            )
        with tf.name_scope("regions"):
            regions = sampled_regions(
                found, batch, of_regions, self.regions_per_image, self.num_classes
            )
        number = batch["images"].shape[0] * replicas.num_replicas()
        sampled = self.anchors_per_image * number
        with tf.name_scope("anchors"):
            goals = (
                anchor_goals(
                    all_anchors,
                    batch["boxes"][i],
                    batch["valid"][i],
                    self.anchors_per_image,
                    choose,
                )
                for i, choose in enumerate(of_anchors)
            )
            goals = (tf.stack(x) for x in zip(*goals, strict=True))
            sums = proposal_losses(all_logits, tf.concat(deltas, 1), *goals)
            losses = [part / sampled for part in sums]
        losses += self._box_losses(maps, regions, training)
        if self.mask_head is not None:
            losses.append(self._mask_loss(maps, regions, batch, training))
        return tf.add_n(losses), dict(zip(self.loss_names, losses, strict=True))

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

    def _mask_loss(self, maps, regions, batch, training):
        assert self.mask_head is not None
        foreground = regions.valid & (regions.classes < self.num_classes)
        most = int(self.regions_per_image * FOREGROUND_SHARE)
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


def _global_count(valid: Tensor, dtype: Any) -> Tensor:
    """How many of all replicas, 1 at least."""
    count = tf.math.count_nonzero(valid, dtype=dtype)
    return tf.maximum(replicas.sum_over_replicas(count), 1)
