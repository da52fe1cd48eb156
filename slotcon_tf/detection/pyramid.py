"""FeaturePyramid: maps of every stride with the meaning of the coarsest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.training.normalization import BatchNormalization
from slotcon_tf.types import Tensor

LEVELS = ("P2", "P3", "P4", "P5")  # of an encoder's `pyramid_outputs`
MULTIPLE = 32  # that edges of images are, in pixels: the stride of P5


@keras.saving.register_keras_serializable(package="slotcon_tf")
class FeaturePyramid(layers.Layer):
    """1x1 laterals, a top-down path of sums, and a 3x3 convolution on each sum.

    Every convolution is followed by batch normalisation over the global batch, without
    ReLU. P6 is every second cell of P5.

    Args:
        channels: Of all levels.

    Call arguments:
        inputs: Dict of P2 .. P5, maps (N, H_l, W_l, C_l) of strides 4 .. 32.
        training: Whether batch statistics are used and recorded.

    Returns:
        Dict of P2 .. P6, maps (N, H_l, W_l, channels).

    Example:
        >>> pyramid = FeaturePyramid(16)
        >>> sizes = {"P2": 16, "P3": 8, "P4": 4, "P5": 2}
        >>> maps = {level: ops.ones((1, s, s, 4)) for level, s in sizes.items()}
        >>> [tuple(found.shape)[1:] for found in pyramid(maps).values()][-2:]
        [(2, 2, 16), (1, 1, 16)]

    Reference: Lin et al. 2017 (arXiv 1612.03144); detectron2's FPN with
    LastLevelMaxPool and NORM SyncBN.
    """

    def __init__(self, channels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        own: dict[str, Any] = {"dtype": self.dtype_policy}
        # Attributes, not lists: tf.train.Checkpoint does not look into Keras's lists.
        for level in LEVELS:
            for part, kernel in (("lateral", 1), ("output", 3)):
                name = f"{part}_{level.lower()}"
                # He's uniform with the fan-in halved: std 1 / sqrt(fan_in).
                initial: Any = keras.initializers.VarianceScaling(
                    1.0, "fan_in", "uniform"
                )
                conv = Conv2D(
                    channels,
                    kernel,
                    padding="same",
                    use_bias=False,
                    kernel_initializer=initial,
                    name=name,
                    **own,
                )
                setattr(self, name, conv)
                norm = BatchNormalization(name=f"{name}_bn", **own)
                setattr(self, f"{name}_bn", norm)

    def build(self, input_shape: Mapping[str, Any]) -> None:
        for level in LEVELS:
            inner = (*tuple(input_shape[level])[:-1], self.channels)
            for part, shape in (("lateral", input_shape[level]), ("output", inner)):
                name = f"{part}_{level.lower()}"
                getattr(self, name).build(tuple(shape))
                getattr(self, f"{name}_bn").build(inner)
        self.built = True

    def call(
        self, inputs: Mapping[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        above = None
        for level in reversed(LEVELS):
            x = self._part("lateral", level, inputs[level], training)
            if above is not None:
                x = x + _twice(above, ops.shape(x))
            above = x  # the sum, not what the 3x3 makes of it
            found[level] = self._part("output", level, x, training)
        return {
            **{level: found[level] for level in LEVELS},
            "P6": found["P5"][:, ::2, ::2],
        }

    def _part(self, part, level, x, training):
        name = f"{part}_{level.lower()}"
        return getattr(self, f"{name}_bn")(getattr(self, name)(x), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}


def _twice(x, like):
    """Nearest, twice as large; without the last row or column where it was padded."""
    x = ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : like[1], : like[2]]
