"""FCNHead: convolutions and a classifier on a map; and dropout of whole channels."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.training import replicas
from slotcon_tf.training.normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="slotcon_tf")
class ChannelDropout(layers.Layer):
    """Sets whole channels of an image to 0 and scales the others by 1 / (1 - rate).

    Which ones is a function of the key and of the image's place in the global batch
    alone: a run that goes on, or that has other replicas, drops the same.

    Args:
        rate: Share of the channels, in [0, 1).

    Call arguments:
        inputs: (B, H, W, C).
        key: int64 (2,), another one for every step.

    Returns:
        The inputs' shape.

    Reference: torch.nn.Dropout2d, which mmsegmentation's heads have.

    Example:
        >>> drop, key = ChannelDropout(0.5), ops.array([0, 1], "int64")
        >>> drop(ops.ones((1, 1, 2, 4)), key).numpy().tolist()
        [[[[2.0, 0.0, 0.0, 2.0], [2.0, 0.0, 0.0, 2.0]]]]
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1). Received: rate={rate}.")
        self.rate = rate

    def call(self, inputs: Any, key: Any) -> Any:
        count = ops.shape(inputs)[0]
        shape = (replicas.num_replicas() * count, inputs.shape[-1])
        # Whole numbers: as floats XLA draws others from the same key.
        whole: dict[str, Any] = {"minval": None, "maxval": None, "dtype": tf.uint32}
        numbers = tf.random.stateless_uniform(shape, key, alg="philox", **whole)
        kept = numbers >= tf.constant(int(self.rate * 2**32), tf.uint32)  # (G, C)
        first = replicas.replica_index() * count
        kept = ops.cast(kept[first : first + count], inputs.dtype)  # (B, C)
        return inputs * kept[:, None, None] / (1.0 - self.rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable(package="slotcon_tf")
class FCNHead(layers.Layer):
    """3x3 convolutions, each with batch normalisation and ReLU; then a 1x1 classifier.

    Args:
        num_classes: Channels of the result.
        channels: Of the convolutions.
        num_convs: Their number.
        dilation: Theirs.
        concat_input: Whether one more convolution sees the input beside their result.
        dropout: Share of channels that are dropped before the classifier.

    Call arguments:
        inputs: Map (B, H, W, C).
        training: Whether batch statistics and dropout are on.
        dropout_key: int64 (2,), another one for every step; None for no dropout.

    Returns:
        Logits (B, H, W, num_classes) in the layer's compute dtype.

    Example:
        >>> import numpy as np
        >>> head = FCNHead(num_classes=3, channels=8)
        >>> tuple(head(np.zeros((1, 4, 6, 16), np.float32)).shape)
        (1, 4, 6, 3)

    Reference: Long et al. 2015 (arXiv 1411.4038); mmsegmentation's FCNHead.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        num_convs: int = 2,
        dilation: int = 1,
        concat_input: bool = True,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.num_convs = num_convs
        self.dilation = dilation
        self.concat_input = concat_input
        self.dropout = dropout
        self._own: dict[str, Any] = {"dtype": self.dtype_policy}
        # Attributes, not lists: tf.train.Checkpoint does not look into Keras's lists.
        for i in range(num_convs):
            setattr(self, f"conv{i}", self._conv(f"conv{i}", dilation))
            setattr(self, f"bn{i}", BatchNormalization(name=f"bn{i}", **self._own))
        if concat_input:
            self.concat_conv = self._conv("concat_conv", 1)
            self.concat_norm = BatchNormalization(name="concat_bn", **self._own)
        self.channel_dropout = ChannelDropout(dropout, name="dropout", **self._own)
        initial: Any = keras.initializers.RandomNormal(stddev=0.01)
        self.classifier = Conv2D(
            num_classes,
            1,
            kernel_initializer=initial,
            name="classifier",
            **self._own,
        )

    @property
    def convs(self) -> list[keras.layers.Layer]:
        return [getattr(self, f"conv{i}") for i in range(self.num_convs)]

    @property
    def norms(self) -> list[keras.layers.Layer]:
        return [getattr(self, f"bn{i}") for i in range(self.num_convs)]

    def _conv(self, name, dilation):
        # Kaiming's normal by fan-out, mmcv's default for a ConvModule.
        scale = (2.0 / (9 * self.channels)) ** 0.5
        initial: Any = keras.initializers.RandomNormal(stddev=scale)
        return Conv2D(
            self.channels,
            3,
            padding="same",
            dilation_rate=dilation,
            use_bias=False,
            kernel_initializer=initial,
            name=name,
            **self._own,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape, inner = tuple(input_shape), (*input_shape[:-1], self.channels)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            conv.build(shape)
            norm.build(inner)
            shape = inner
        if self.concat_input:
            both = (*inner[:-1], input_shape[-1] + shape[-1])
            self.concat_conv.build(both)
            self.concat_norm.build(inner)
            shape = inner
        self.classifier.build(shape)
        self.built = True

    def call(
        self, inputs: Any, training: bool | None = None, dropout_key: Any = None
    ) -> Any:
        x = inputs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = ops.relu(norm(conv(x), training=training))  # (B, H, W, channels)
        if self.concat_input:
            x = self.concat_conv(ops.concatenate([inputs, x], axis=-1))
            x = ops.relu(self.concat_norm(x, training=training))
        if training and self.dropout and dropout_key is not None:
            x = self.channel_dropout(x, dropout_key)
        return self.classifier(x)  # (B, H, W, num_classes)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
            "num_convs": self.num_convs,
            "dilation": self.dilation,
            "concat_input": self.concat_input,
            "dropout": self.dropout,
        }
