"""Conv2D: a convolution whose training is fast on every CPU, oneDNN or not.

Two of TensorFlow's ways to differentiate a convolution on a CPU are holes, in which a
step of a second takes minutes:
- Without oneDNN, the gradient of the inputs packs the whole kernel anew for a handful
  of positions: a layer trains up to 14 times slower on small maps with many channels,
  and on dilated ones, which TensorFlow cuts into smaller maps
  (tensorflow/tensorflow#54279, #49123).
- Grouped convolutions (ResNeXt), with oneDNN as well: Keras has XLA compile them, whose
  gradients make a layer 70 to 140 times slower than one convolution per group.
The functions here give the same gradients as products of matrices, as convolutions of
another kind, or as TensorFlow's own operation where that is the fastest.
`benchmarks/README.md` has the times.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

# Not public; there is no public way to ask whether a tape is recording.
from tensorflow.python.eager.record import could_possibly_record

from slotcon_tf.devices import runs_on_cpu
from slotcon_tf.processor import onednn_is_on
from slotcon_tf.types import Tensor

# A map with fewer positions than this share of the channels is small: there the matrix
# products cost less than what a convolution does to its kernel.
SMALL_MAP = 1 / 4


@keras.saving.register_keras_serializable(package="slotcon_tf")
class Conv2D(layers.Conv2D):
    """keras.layers.Conv2D, with gradients of its own where TensorFlow's are slow.

    That is on CPUs, outside XLA, without oneDNN or with groups, and where a gradient
    may be asked for: no SavedModel and no ONNX file holds anything but the plain
    operation.

    Args:
        As keras.layers.Conv2D.

    Call arguments:
        inputs: (B, H, W, C).

    Returns:
        (B, H', W', filters).

    Example:
        >>> import numpy as np
        >>> Conv2D(8, 3, padding="same")(np.ones((1, 4, 4, 2))).shape
        TensorShape([1, 4, 4, 8])
    """

    def call(self, inputs: Tensor) -> Tensor:
        if not (could_possibly_record() and self._differentiates_itself()):
            return super().call(inputs)

        @tf.custom_gradient
        def convolve(x: Tensor, kernel: Tensor) -> Any:
            outputs = self._grouped(x, kernel)
            return outputs, lambda dy: self._gradients(x, kernel, dy)

        outputs: Tensor = convolve(inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs += self.bias
        return outputs if self.activation is None else self.activation(outputs)

    def _differentiates_itself(self) -> bool:
        size, dilation = self.kernel_size, self.dilation_rate
        known = (
            self.data_format == "channels_last"
            and len({*size}) == len({*self.strides}) == len({*dilation}) == 1
            and size[0] % 2 == 1
            and self.padding == ("same" if self.strides[0] == 1 else "valid")
        )
        return known and runs_on_cpu() and (self.groups > 1 or not onednn_is_on())

    def _grouped(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The convolution, group by group."""
        parts = zip(self._split(x), self._split(kernel), strict=True)
        outputs: list[Tensor] = [self.convolution_op(a, b) for a, b in parts]
        return tf.concat(outputs, axis=-1)

    def _split(self, x: Tensor) -> list[Tensor]:
        return tf.split(x, self.groups, axis=-1)

    def _gradients(
        self, x: Tensor, kernel: Tensor, dy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the inputs and of the kernel."""
        stride, dilation = self.strides[0], self.dilation_rate[0]
        parts = zip(self._split(x), self._split(kernel), self._split(dy), strict=True)
        found = [
            (
                input_gradient(a, b, c, stride, dilation),
                kernel_gradient(a, b, c, stride, dilation),
            )
            for a, b, c in parts
        ]
        dx, dkernel = zip(*found, strict=True)
        return tf.concat(dx, axis=-1), tf.concat(dkernel, axis=-1)


def input_gradient(
    x: Tensor, kernel: Tensor, dy: Tensor, stride: int, dilation: int
) -> Tensor:
    """Gradient of a convolution's inputs.

    The convolution pads evenly with stride 1 ("same"), and not at all with others.

    Args:
        x: Inputs (B, H, W, C); their sizes count.
        kernel: (k, k, C, F), k odd.
        dy: Gradient of the outputs (B, H', W', F).
        stride, dilation: Of the convolution; not both above 1.

    Returns:
        (B, H, W, C).

    Example:
        >>> x, kernel = tf.ones((1, 4, 4, 2)), tf.ones((3, 3, 2, 5))
        >>> dy = tf.ones((1, 4, 4, 5))
        >>> input_gradient(x, kernel, dy, stride=1, dilation=1).shape
        TensorShape([1, 4, 4, 2])
    """
    height, width, filters = dy.shape[1:]
    positions = height * width if height and width else float("inf")
    if kernel.shape[0] == stride == 1 or positions < SMALL_MAP * filters:
        return _sum_of_taps(x, kernel, dy, stride, dilation)
    if dilation > 1:
        turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))  # (k, k, F, C)
        return tf.nn.convolution(dy, turned, padding="SAME", dilations=dilation)
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **_plain(stride)
    )


def kernel_gradient(
    x: Tensor, kernel: Tensor, dy: Tensor, stride: int, dilation: int
) -> Tensor:
    """Gradient of a convolution's kernel (k, k, C, F); see `input_gradient`.

    Example:
        >>> x, kernel = tf.ones((1, 4, 4, 2)), tf.ones((3, 3, 2, 5))
        >>> kernel_gradient(x, kernel, tf.ones((1, 4, 4, 5)), 1, 1).shape
        TensorShape([3, 3, 2, 5])
    """
    size, _, channels, filters = kernel.shape
    if dilation == 1 and (size > 1 or stride > 1):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=kernel.shape, out_backprop=dy, **_plain(stride)
        )
    pad = dilation * (size // 2)
    height, width = _extent(dy)
    padded = tf.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x
    rows = tf.reshape(dy, (-1, filters))  # (B*H*W, F)
    taps = [
        padded[:, top : top + height, left : left + width]
        for top, left in _offsets(size, dilation)
    ]
    parts = [
        tf.matmul(tf.reshape(tap, (-1, channels)), rows, transpose_a=True)
        for tap in taps
    ]
    return tf.reshape(tf.stack(parts), kernel.shape)


def _sum_of_taps(
    x: Tensor, kernel: Tensor, dy: Tensor, stride: int, dilation: int
) -> Tensor:
    """One matrix product for all of a kernel's positions, then a sum of its parts."""
    size, _, channels, filters = kernel.shape
    pad = dilation * (size // 2) if stride == 1 else 0
    height, width = _extent(dy)
    rows = tf.reshape(dy, (-1, filters))
    taps = tf.reshape(kernel, (-1, filters))  # (k*k*C, F)
    parts = tf.matmul(rows, taps, transpose_b=True)  # (B*H'*W', k*k*C)
    if size == stride == 1:
        return tf.reshape(parts, tf.shape(x))
    full_height, full_width = (edge + 2 * pad for edge in _extent(x))
    reach_height, reach_width = (stride * (edge - 1) + 1 for edge in (height, width))
    placed = []
    parts = tf.reshape(parts, (-1, height, width, size * size * channels))
    parts = tf.split(parts, size * size, axis=-1)
    for (top, left), part in zip(_offsets(size, dilation), parts, strict=True):
        part = _spread(part, stride)
        bottom = full_height - top - reach_height
        right = full_width - left - reach_width
        placed.append(tf.pad(part, ((0, 0), (top, bottom), (left, right), (0, 0))))
    total = tf.add_n(placed)
    height, width = _extent(x)
    return total[:, pad : pad + height, pad : pad + width]


def _spread(x: Tensor, stride: int) -> Tensor:
    """Rows and columns `stride` apart, with zeros between them."""
    if stride == 1:
        return x
    height, width = _extent(x)
    none, gap = (0, 0), (0, stride - 1)
    x = x[:, :, None, :, None]
    x = tf.pad(x, (none, none, gap, none, gap, none))
    x = tf.reshape(x, (-1, height * stride, width * stride, x.shape[-1]))
    return x[:, : stride * (height - 1) + 1, : stride * (width - 1) + 1]


def _offsets(size: int, dilation: int) -> list[tuple[int, int]]:
    """(top, left) of each of the kernel's positions, row by row."""
    steps = range(0, size * dilation, dilation)
    return [(top, left) for top in steps for left in steps]


def _extent(x: Tensor) -> list[Any]:
    """Height and width, as numbers where they are known."""
    return [x.shape[i] or tf.shape(x)[i] for i in (1, 2)]


def _plain(stride: int) -> dict[str, Any]:
    padding = "SAME" if stride == 1 else "VALID"
    return {"strides": (1, stride, stride, 1), "padding": padding}
