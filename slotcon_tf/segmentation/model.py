"""Segmenter: an encoder, an FCN head, and how they learn from pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.devices import at_least_float32
from slotcon_tf.encoders.copies import with_stride
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.images.statistics import ImageStatistics, statistics_of
from slotcon_tf.presets import AUXILIARY_HEAD
from slotcon_tf.segmentation.heads import FCNHead
from slotcon_tf.segmentation.losses import pixel_cross_entropy
from slotcon_tf.segmentation.resize import resize_bilinear
from slotcon_tf.training import replicas


def dilated(encoder: ResNet, output_stride: int) -> ResNet:
    """A copy of an encoder for segmentation: finer maps, the same weights.

    Args:
        encoder: A `slotcon_tf.ResNet`.
        output_stride: 8 or 16: the last stages are dilated, their first blocks by half.

    Returns:
        A trainable `slotcon_tf.ResNet` in the precision of the present policy.

    Raises:
        TypeError: If the encoder is something else.

    Example:
        >>> from slotcon_tf import backbone
        >>> dilated(backbone("resnet10"), 16).output_stride
        16
    """
    if not isinstance(encoder, ResNet):
        raise TypeError(
            "The encoder must be a slotcon_tf.ResNet, whose stages can be dilated. "
            f"Received: {encoder!r}, a {type(encoder).__name__}. Take a ResNet, or "
            "build a Segmenter with your encoder as it is."
        )
    return with_stride(encoder, output_stride, contract_dilation=True)


@keras.saving.register_keras_serializable(package="slotcon_tf")
class Segmenter(keras.Model):
    """Fully convolutional segmentation: encoder, head, logits at the image's size.

    The loss is the pixels' cross-entropy, plus `auxiliary_weight` times that of a head
    on the third stage, which only training has.

    Args:
        encoder: Keras model, images (B, height, width, 3) to a map (B, H, W, C); with
            an auxiliary head it needs `pyramid_outputs`, as `slotcon_tf.ResNet` has.
            `dilated(encoder, 16)` and `dilated(encoder, 8)` are the paper's.
        class_names: Names of the classes, in the order of the labels.
        head: Dict of arguments of `FCNHead`.
        align_corners: How logits are resized, see `bilinear_matrix`.
        auxiliary_weight: Weight of the auxiliary loss; 0 for no such head.
        seed: Of the dropout.

    Call arguments:
        inputs: Normalised images (B, height, width, 3).
        training: Whether batch statistics and dropout are on.

    Returns:
        Logits (B, height, width, num_classes), float32 or float64.

    Raises:
        ValueError: If an auxiliary head is asked for, and the encoder has no stages.

    Example:
        >>> import numpy as np
        >>> from slotcon_tf import backbone
        >>> head = {"channels": 8, "concat_input": False}
        >>> names = ("sky", "road")
        >>> model = Segmenter(backbone("resnet10"), class_names=names, head=head)
        >>> tuple(model(np.zeros((1, 64, 64, 3), np.float32)).shape)
        (1, 64, 64, 2)

    Reference: Wen et al. 2022 (arXiv 2205.15288), section 4.1; Long et al. 2015 (arXiv
    1411.4038); `slotcon_tf.presets.HEADS` holds the settings.
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        class_names: Sequence[str],
        head: Mapping[str, Any],
        align_corners: bool = False,
        auxiliary_weight: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.class_names = tuple(class_names)
        self.head_settings = dict(head)
        self.align_corners = align_corners
        self.auxiliary_weight = auxiliary_weight
        self.seed = seed
        own = {"num_classes": self.num_classes, "dtype": self.dtype_policy}
        self.head = FCNHead(name="head", **own, **head)
        self.head.build(encoder.output_shape)
        self.auxiliary = None
        if auxiliary_weight:
            stage = (getattr(encoder, "pyramid_outputs", None) or {}).get("P4")
            if stage is None:
                raise ValueError(
                    "auxiliary_weight needs an encoder with pyramid_outputs, such as "
                    f"slotcon_tf.ResNet. Received: {encoder.name!r}. Set it to 0."
                )
            stages = keras.Model(encoder.inputs, [stage, encoder.outputs[0]])
            # In a function, so that Keras does not track the layers once more.
            self._stages = lambda: stages
            self.auxiliary = FCNHead(name="auxiliary", **own, **AUXILIARY_HEAD)
            self.auxiliary.build(stage.shape)
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
        )
        names = ("loss", "pixel_accuracy")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
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

    def call(self, inputs: Any, training: bool = False) -> Any:
        features = self.encoder(inputs, training=training)  # (B, H, W, C)
        logits = self.head(features, training=training, dropout_key=self._key(0))
        return self._to_size(logits, inputs)

    def _to_size(self, logits, images):
        size = ops.shape(images)[1:3]
        logits = at_least_float32(logits)
        return resize_bilinear(logits, size, align_corners=self.align_corners)

    def _key(self, number):
        """Of the dropout of one head in this step."""
        return tf.stack([2 * self.seed + number, tf.convert_to_tensor(self.step)])

    def compute_losses(
        self, images: tf.Tensor, labels: tf.Tensor, training: bool = True
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of a batch.

        Args:
            images: (B, height, width, 3), normalised.
            labels: Integers (B, height, width), 255 where void.
            training: Whether batch statistics and dropout are on.

        Returns:
            Tuple of this replica's share of the global loss, and the diagnostics of
            `pixel_cross_entropy`.
        """
        count = replicas.num_replicas()
        if self.auxiliary is None:
            logits = self(images, training=training)
            return pixel_cross_entropy(logits, labels, num_replicas=count)
        middle, last = self._stages()(images, training=training)
        logits = self.head(last, training=training, dropout_key=self._key(0))
        logits = self._to_size(logits, images)
        loss, found = pixel_cross_entropy(logits, labels, num_replicas=count)
        logits = self.auxiliary(middle, training=training, dropout_key=self._key(1))
        logits = self._to_size(logits, images)
        auxiliary, _ = pixel_cross_entropy(logits, labels, num_replicas=count)
        return loss + self.auxiliary_weight * auxiliary, found

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on (images, labels)."""
        images, labels = data
        with tf.GradientTape() as tape:
            loss, found = self.compute_losses(images, labels)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.step.assign(self.step + 1)
        return self._track(loss, found)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Loss and accuracy of crops with moving statistics."""
        return self._track(*self.compute_losses(*data, training=False))

    def _track(self, loss, found):
        total = replicas.sum_over_replicas({"loss": loss, **found})
        self.trackers["loss"].update_state(total["loss"])
        self.trackers["pixel_accuracy"].update_state(
            total["correct"] / ops.maximum(total["valid"], 1.0),
            # A batch of void pixels says nothing.
            sample_weight=ops.cast(total["valid"] > 0, total["valid"].dtype),
        )
        return {name: tracker.result() for name, tracker in self.trackers.items()}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds what `fit` needs without a batch: everything else is built."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "class_names": list(self.class_names),
            "head": dict(self.head_settings),
            "align_corners": self.align_corners,
            "auxiliary_weight": self.auxiliary_weight,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Segmenter:
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)
