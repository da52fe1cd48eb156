"""Batch normalisation: fused, cross-replica, with an optional mask of valid rows."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.devices import HALF_DTYPES, at_least_float32, runs_on_cpu
from slotcon_tf.training import replicas
from slotcon_tf.types import Shape, Tensor

# The fused kernel has no float64 form.
_FUSED_DTYPES = ("float32", *HALF_DTYPES)
_USUAL = 512  # what an unknown size is thought to be


class _State(threading.local):  # replicas trace in threads of their own
    """What is so for the layers that are called in a context of this thread."""

    recording = True
    take: Callable[[Any, Tensor, Tensor, Tensor], None] | None = None
    careful = False


_STATE = _State()


@contextlib.contextmanager
def _meanwhile(name: str, value: Any) -> Iterator[None]:
    before = getattr(_STATE, name)
    setattr(_STATE, name, value)
    try:
        yield
    finally:
        setattr(_STATE, name, before)


@contextlib.contextmanager
def recording(enabled: bool) -> Iterator[None]:
    """Whether moving statistics are updated by what is called inside.

    Example:
        >>> norm = BatchNormalization()
        >>> with recording(False):
        ...     _ = norm(tf.ones((4, 3)), training=True)
        >>> norm.moving_mean.numpy().tolist()
        [0.0, 0.0, 0.0]
    """
    with _meanwhile("recording", enabled):
        yield


@contextlib.contextmanager
def gathering(take: Callable[[Any, Tensor, Tensor, Tensor], None]) -> Iterator[None]:
    """Batch statistics of what is called inside go to a function.

    Args:
        take: Function of a layer, the mean (C,) and the biased variance (C,) of its
            batch, and the number of rows (a scalar). Moving statistics stay.

    Example:
        >>> norm, seen = BatchNormalization(), []
        >>> with gathering(lambda layer, mean, variance, count: seen.append(mean)):
        ...     _ = norm(tf.constant([[1.0], [3.0]]), training=True)
        >>> float(seen[0][0])
        2.0
    """
    with _meanwhile("take", take):
        yield


@contextlib.contextmanager
def careful_sums() -> Iterator[None]:
    """What is called inside sums float32 in two stages on a CPU, as `sum_of_rows` does.

    TensorFlow's fused kernel adds one number after the other: of 122,880 rows the
    output is 4e-5 standard deviations off, of 486,400 rows 4e-4, and here 3e-6. It
    costs a third more than the kernel. Other devices' kernels are careful anyway.

    Example:
        >>> norm, rows = BatchNormalization(), tf.constant([[1.0], [3.0]])
        >>> with careful_sums():
        ...     norm(rows, training=True).numpy().round(3).tolist()
        [[-1.0], [1.0]]
    """
    with _meanwhile("careful", True):
        yield


def sum_of_rows(x: Tensor) -> Tensor:
    """Sum over all axes but the last: over the first ones, then over the others.

    The error of a sum one by one grows with the number of its terms; both stages have
    about the root of it. And whole slices are added to each other, which is faster.

    Args:
        x: (..., C).

    Returns:
        (C,).

    Example:
        >>> sum_of_rows(tf.ones([2, 3, 4, 5])).numpy().tolist()
        [24.0, 24.0, 24.0, 24.0, 24.0]
    """
    sizes = [size or _USUAL for size in x.shape[:-1]]
    if len(sizes) > 1:
        cut = min(
            range(1, len(sizes)),
            key=lambda i: max(math.prod(sizes[:i]), math.prod(sizes[i:])),
        )
        rest = x.shape[cut:]
        known = rest.num_elements() or tf.reduce_prod(tf.shape(x)[cut:])
        x = tf.reduce_sum(tf.reshape(x, (-1, known)), axis=0)
        x = tf.reshape(x, (-1, rest[-1]))
    return tf.reduce_sum(x, axis=0)


def masked_moments(
    x: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of the last axis over the *global* batch.

    Each replica reduces its own rows about their own mean; the parts are then
    combined exactly (Chan, Golub and LeVeque 1979), which one gather pays for and
    which loses no digits where mean and spread differ much.

    Args:
        x: (..., C) float32 or float64.
        mask: bool (...), True where a row counts, or None for all rows.

    Returns:
        Tuple of mean (C,), variance (C,) and count (scalar): the number of rows of
        all replicas. Without any row, mean and variance are 0.

    Example:
        >>> rows = tf.constant([[1.0], [3.0], [100.0]])
        >>> mean, variance, _ = masked_moments(rows, tf.constant([True, True, False]))
        >>> float(mean[0]), float(variance[0])
        (2.0, 1.0)
    """
    # Plain TensorFlow: keras.ops would make three times as many operations, of which
    # every layer, view, network and replica has its own.
    if mask is None:
        count = x.shape[:-1].num_elements() or tf.reduce_prod(tf.shape(x)[:-1])
        count = tf.cast(count, x.dtype)
        mean = sum_of_rows(x) / tf.maximum(count, 1.0)  # (C,)
        scatter = sum_of_rows(tf.math.squared_difference(x, mean))
    else:
        weight = tf.cast(mask[..., None], x.dtype)  # (..., 1)
        count = tf.reduce_sum(weight)
        mean = sum_of_rows(weight * x) / tf.maximum(count, 1.0)
        scatter = sum_of_rows(weight * tf.math.squared_difference(x, mean))
    if replicas.num_replicas() > 1:
        part = tf.stack([mean, scatter, tf.fill(mean.shape, count)])
        parts = replicas.gather_small(part)  # (R, 3, C)
        means, scatters, counts = tf.unstack(parts, axis=1)  # (R, C) each
        count = tf.reduce_sum(counts, axis=0)[0]
        mean = tf.reduce_sum(counts * means, axis=0) / tf.maximum(count, 1.0)
        squares = tf.math.squared_difference(means, mean)
        scatter = tf.reduce_sum(scatters + counts * squares, axis=0)
    return mean, scatter / tf.maximum(count, 1.0), count


def normalize_batch(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch normalisation over the *global* batch, with its gradient in closed form.

    What autodiff makes of the moments is as exact, but several times as many operations
    for each layer and replica: tracing took minutes on several replicas.

    Args:
        x: (..., C) float32 or float64.
        gamma, beta: (C,), scale and shift.
        epsilon: Added to the variance.
        mask: As `masked_moments` takes it.

    Returns:
        Tuple of the result (..., C), and mean, variance and count, through which no
        gradient flows.

    Example:
        >>> rows, one, zero = tf.constant([[1.0], [3.0]]), tf.ones(1), tf.zeros(1)
        >>> normalize_batch(rows, one, zero, 0.0)[0].numpy().tolist()
        [[-1.0], [1.0]]
    """
    weight = None if mask is None else tf.cast(mask[..., None], x.dtype)
    fused = str(x.dtype.name) in _FUSED_DTYPES and x.shape.rank == 4 and runs_on_cpu()
    kernel = {"epsilon": epsilon, "is_training": False}

    @tf.custom_gradient
    def normalized(x: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        mean, variance, count = masked_moments(x, mask)
        inverse = tf.math.rsqrt(variance + epsilon)  # (C,)
        scale = inverse * gamma
        if fused:  # in one pass
            outputs = tf.raw_ops.FusedBatchNormV3(
                x=x, scale=gamma, offset=beta, mean=mean, variance=variance, **kernel
            )[0]
        else:
            # Centring first would cost another pass; float32 keeps the digits needed.
            outputs = x * scale + (beta - mean * scale)

        def gradient(dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if fused and mask is None and replicas.num_replicas() == 1:
                saved = {f"reserve_space_{i + 1}": mean for i in range(3)}
                saved["reserve_space_2"] = variance
                return tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=dy,
                    x=x,
                    scale=gamma,
                    epsilon=epsilon,
                    is_training=True,
                    **saved,
                )[:3]
            dbeta = sum_of_rows(dy)  # (C,)
            dgamma = sum_of_rows(dy * (x - mean)) * inverse
            # Every row moved the mean and the variance, and they every output.
            moved = replicas.sum_over_replicas(tf.stack([dbeta, dgamma]))
            moved *= scale / tf.maximum(count, 1.0)
            slope = moved[1] * inverse
            share = x * slope + (moved[0] - mean * slope)
            if weight is not None:
                share *= weight
            return scale * dy - share, dgamma, dbeta

        return (outputs, mean, variance, count), gradient

    return normalized(x, gamma, beta)


@keras.saving.register_keras_serializable(package="slotcon_tf")
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation over all replicas, with torch's running statistics.

    Training: `y = gamma * (x - mean) / sqrt(var + epsilon) + beta`, with mean and
    (biased) variance over every axis but the last, over the global batch. The moving
    variance takes the *unbiased* variance, as torch.nn.BatchNorm2d does. A single
    replica without a mask takes TensorFlow's fused kernel. `trainable=False` on the
    layer selects the moving statistics, as in Keras; flag the *variables* instead to
    keep batch statistics without training (what the teacher needs).

    Args:
        momentum: Share of the old moving statistics kept per step.
        epsilon: Added to the variance.
        gamma_initializer: Keras initializer of the scale.

    Call arguments:
        inputs: (..., C), rank 2 or more.
        training: Whether to use and record batch statistics.
        mask: bool (...), the inputs' shape without its last axis; rows with False
            influence no statistic (their outputs are meaningless but finite). None
            counts every row. With no valid row at all, moving statistics stay.

    Returns:
        The inputs' shape and the layer's compute dtype.

    Example:
        >>> BatchNormalization()(tf.constant([[1.0], [3.0]]), training=True).shape
        TensorShape([2, 1])
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        full = {"shape": shape, "dtype": self.variable_dtype, "autocast": False}
        self.gamma = self.add_weight(
            name="gamma", initializer=self.gamma_initializer, **full
        )
        self.beta = self.add_weight(name="beta", initializer="zeros", **full)
        self.moving_mean = self.add_weight(
            name="moving_mean", initializer="zeros", trainable=False, **full
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", initializer="ones", trainable=False, **full
        )
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if not (training and self.trainable):
            return self._with_moving_statistics(inputs)
        fusable = self.compute_dtype in _FUSED_DTYPES
        if _STATE.careful and self.compute_dtype == "float32":
            fusable = not runs_on_cpu()
        if mask is None and fusable and replicas.num_replicas() == 1:
            return self._fused(inputs)
        outputs, mean, variance, count = normalize_batch(
            at_least_float32(inputs),
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            self.epsilon,
            mask,
        )
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        self._record(mean, unbiased, count, seen=tf.cast(count > 0, mean.dtype))
        return ops.cast(outputs, self.compute_dtype)

    def _with_moving_statistics(self, inputs: Tensor) -> Tensor:
        scale = ops.rsqrt(self.moving_variance + self.epsilon) * self.gamma  # (C,)
        shift = self.beta - self.moving_mean * scale  # (C,)
        outputs = at_least_float32(inputs) * scale + shift
        return ops.cast(outputs, self.compute_dtype)

    def _fused(self, inputs: Tensor) -> Tensor:
        shape = ops.shape(inputs)
        maps = inputs if len(inputs.shape) == 4 else self._as_maps(inputs)
        outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros([0], self.variable_dtype),
            variance=tf.zeros([0], self.variable_dtype),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.reduce_prod(tf.shape(maps)[:-1]), mean.dtype)
        self._record(mean, unbiased, count, seen=1.0)
        return ops.reshape(outputs, shape)

    def _as_maps(self, inputs: Tensor) -> Tensor:
        return ops.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))

    def _record(
        self, mean: Tensor, variance: Tensor, count: Tensor, seen: Tensor
    ) -> None:
        """Moves the statistics by `1 - momentum`, or not at all where seen is 0."""
        take = _STATE.take
        if take is not None:
            biased = variance * tf.maximum(count - 1.0, 1.0) / tf.maximum(count, 1.0)
            take(self, mean, biased, count)
            return
        if not _STATE.recording:
            return
        rate = (1.0 - self.momentum) * seen
        for moving, new in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            old = tf.convert_to_tensor(moving)
            # A NaN would stay for good, also where the step that met it is skipped.
            new = tf.where(tf.math.is_finite(new), tf.cast(new, old.dtype), old)
            moving.assign(old + (new - old) * rate)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }
