"""The three heads of Mask R-CNN: proposals, boxes, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.training.normalization import BatchNormalization
from slotcon_tf.types import Shape, Tensor


def _normal(std: float) -> Any:
    return keras.initializers.RandomNormal(stddev=std)


def _kaiming(channels: int, kernel: int = 3) -> Any:
    """He's normal by fan-out, of a convolution that ReLU follows."""
    return _normal((2.0 / (kernel**2 * channels)) ** 0.5)


@keras.saving.register_keras_serializable(package="slotcon_tf")
class ProposalHead(layers.Layer):
    """A 3x3 convolution on every level, then logits and deltas of every anchor.

    Args:
        channels: Of the levels, and of the convolution.
        num_anchors: Of a cell.

    Call arguments:
        inputs: Sequence of maps (N, H_l, W_l, channels).

    Returns:
        Tuple of lists, of each level: logits (N, H_l * W_l * num_anchors), and deltas
        (N, H_l * W_l * num_anchors, 4), in the order of `level_anchors`.

    Example:
        >>> head = ProposalHead(8, num_anchors=3)
        >>> logits, deltas = head([ops.ones((1, 4, 6, 8)), ops.ones((1, 2, 3, 8))])
        >>> [x.shape[1] for x in logits], deltas[1].shape
        ([72, 18], TensorShape([1, 18, 4]))

    Reference: Ren et al. 2015 (arXiv 1506.01497); detectron2's StandardRPNHead.
    """

    def __init__(self, channels: int, num_anchors: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.num_anchors = num_anchors
        own: dict[str, Any] = {"kernel_initializer": _normal(0.01)}
        own["dtype"] = self.dtype_policy
        self.conv = Conv2D(channels, 3, padding="same", name="conv", **own)
        self.logits = Conv2D(num_anchors, 1, name="logits", **own)
        self.deltas = Conv2D(4 * num_anchors, 1, name="deltas", **own)

    def build(self, input_shape: Any) -> None:
        del input_shape
        shape = (None, None, None, self.channels)
        for layer in (self.conv, self.logits, self.deltas):
            layer.build(shape)
        self.built = True

    def call(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for level in inputs:
            x = ops.relu(self.conv(level))
            count = ops.shape(level)[0]
            logits.append(ops.reshape(self.logits(x), (count, -1)))
            deltas.append(ops.reshape(self.deltas(x), (count, -1, 4)))
        return logits, deltas

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_anchors": self.num_anchors,
        }


class _ConvHead(layers.Layer):
    """3x3 convolutions with batch normalisation and ReLU, on the maps of regions."""

    def __init__(self, channels: int, num_convs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.num_convs = num_convs
        self._own: dict[str, Any] = {"dtype": self.dtype_policy}
        for i in range(num_convs):
            conv = Conv2D(
                channels,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=_kaiming(channels),
                name=f"conv{i}",
                **self._own,
            )
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", BatchNormalization(name=f"bn{i}", **self._own))

    def _build_convs(self, shape: Shape) -> Shape:
        for i in range(self.num_convs):
            getattr(self, f"conv{i}").build(shape)
            shape = (*shape[:-1], self.channels)
            getattr(self, f"bn{i}").build(shape)
        return shape

    def _convolved(self, x: Tensor, training: bool | None, valid: Tensor | None):
        """Rows that are not valid (R,) influence no statistic."""
        for i in range(self.num_convs):
            x = getattr(self, f"conv{i}")(x)
            mask = None
            if valid is not None:
                mask = ops.broadcast_to(valid[:, None, None], ops.shape(x)[:-1])
            x = ops.relu(getattr(self, f"bn{i}")(x, training=training, mask=mask))
        return x

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "channels": self.channels, "num_convs": self.num_convs}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class BoxHead(_ConvHead):
    """Four convolutions, a dense layer; then class logits and deltas of each class.

    Args:
        num_classes: Without the background, which is the last logit.
        channels: Of the convolutions.
        units: Of the dense layer.
        num_convs: Convolutions.

    Call arguments:
        inputs: Regions (R, 7, 7, C).
        training: Whether batch statistics are used and recorded.
        valid: bool (R,), regions that are there, or None for all.

    Returns:
        Tuple of logits (R, num_classes + 1) and deltas (R, num_classes, 4).

    Example:
        >>> head = BoxHead(num_classes=3, channels=8, units=16)
        >>> logits, deltas = head(ops.ones((2, 7, 7, 4)))
        >>> logits.shape, deltas.shape
        (TensorShape([2, 4]), TensorShape([2, 3, 4]))

    Reference: detectron2's FastRCNNConvFCHead (4conv1fc) and FastRCNNOutputLayers.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        units: int = 1024,
        num_convs: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels, num_convs, **kwargs)
        self.num_classes = num_classes
        self.units = units
        uniform: Any = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        self.dense = layers.Dense(
            units, "relu", kernel_initializer=uniform, name="dense", **self._own
        )
        self.logits = layers.Dense(
            num_classes + 1,
            kernel_initializer=_normal(0.01),
            name="logits",
            **self._own,
        )
        self.deltas = layers.Dense(
            4 * num_classes,
            kernel_initializer=_normal(0.001),
            name="deltas",
            **self._own,
        )

    def build(self, input_shape: Shape) -> None:
        _, height, width, channels = self._build_convs(tuple(input_shape))
        assert height and width and channels
        self.dense.build((None, height * width * channels))
        for layer in (self.logits, self.deltas):
            layer.build((None, self.units))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = self._convolved(inputs, training, valid)
        x = self.dense(ops.reshape(x, (-1, self.dense.kernel.shape[0])))
        deltas = ops.reshape(self.deltas(x), (-1, self.num_classes, 4))
        return self.logits(x), deltas

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "num_classes": self.num_classes, "units": self.units}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class MaskHead(_ConvHead):
    """Four convolutions, a transposed one that doubles the size; a mask of each class.

    Args:
        num_classes: Masks.
        channels: Of the convolutions.
        num_convs: Before the transposed one.

    Call arguments:
        inputs: Regions (R, 14, 14, C).
        training: Whether batch statistics are used and recorded.
        valid: bool (R,), regions that are there, or None for all.

    Returns:
        Logits (R, 28, 28, num_classes).

    Example:
        >>> MaskHead(num_classes=3, channels=8)(ops.ones((2, 14, 14, 4))).shape
        TensorShape([2, 28, 28, 3])

    Reference: He et al. 2017 (arXiv 1703.06870); detectron2's
    MaskRCNNConvUpsampleHead.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels, num_convs, **kwargs)
        self.num_classes = num_classes
        self.upsample = layers.Conv2DTranspose(
            channels,
            2,
            strides=2,
            activation="relu",
            kernel_initializer=_kaiming(channels, 2),
            name="upsample",
            **self._own,
        )
        self.logits = Conv2D(
            num_classes,
            1,
            kernel_initializer=_normal(0.001),
            name="logits",
            **self._own,
        )

    def build(self, input_shape: Shape) -> None:
        shape = self._build_convs(tuple(input_shape))
        self.upsample.build(shape)
        self.logits.build((None, None, None, self.channels))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        x = self._convolved(inputs, training, valid)
        return self.logits(self.upsample(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}
