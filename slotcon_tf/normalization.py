"""Batch normalisation: fused, cross-replica, with an optional mask of valid rows."""

import contextlib
import threading

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf import replicas
from slotcon_tf.precision import at_least_float32

# The fused kernel has no float64 form.
_FUSED_DTYPES = ("float32", "float16", "bfloat16")
_STATE = threading.local()  # replicas trace in threads of their own


@contextlib.contextmanager
def recording(enabled):
    """Whether moving statistics are updated by what is called inside."""
    before = getattr(_STATE, "recording", True)
    _STATE.recording = enabled
    try:
        yield
    finally:
        _STATE.recording = before


def masked_moments(x, mask=None):
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
    """
    x = ops.reshape(x, (-1, x.shape[-1]))  # (N, C)
    if mask is None:
        count = ops.cast(ops.shape(x)[0], x.dtype)
        mean = ops.mean(x, axis=0)  # (C,)
        scatter = ops.sum(ops.square(x - mean), axis=0)  # (C,)
    else:
        weight = ops.cast(ops.reshape(mask, (-1, 1)), x.dtype)  # (N, 1)
        count = ops.sum(weight)
        mean = ops.sum(weight * x, axis=0) / ops.maximum(count, 1.0)
        scatter = ops.sum(weight * ops.square(x - mean), axis=0)
    if replicas.num_replicas() > 1:
        part = ops.stack([mean, scatter, ops.broadcast_to(count, mean.shape)])
        parts = replicas.gather(part[None])  # (R, 3, C)
        means, scatters, counts = parts[:, 0], parts[:, 1], parts[:, 2]
        count = ops.sum(counts, axis=0)[0]
        mean = ops.sum(counts * means, axis=0) / ops.maximum(count, 1.0)
        scatter = ops.sum(scatters + counts * ops.square(means - mean), axis=0)
    return mean, scatter / ops.maximum(count, 1.0), count


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
    """

    def __init__(
        self, *, momentum=0.9, epsilon=1e-5, gamma_initializer="ones", **kwargs
    ):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.supports_masking = True

    def build(self, input_shape):
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

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return self._normalize(inputs, self.moving_mean, self.moving_variance)
        fusable = self.compute_dtype in _FUSED_DTYPES
        if mask is None and fusable and replicas.num_replicas() == 1:
            return self._fused(inputs)
        mean, variance, count = masked_moments(at_least_float32(inputs), mask)
        unbiased = variance * count / ops.maximum(count - 1.0, 1.0)
        self._record(mean, unbiased, seen=ops.cast(count > 0, mean.dtype))
        return self._normalize(inputs, mean, variance)

    def _normalize(self, inputs, mean, variance):
        scale = ops.rsqrt(variance + self.epsilon) * self.gamma  # (C,)
        shift = self.beta - mean * scale  # (C,)
        # Centring first would cost another pass; float32 keeps the digits needed.
        outputs = at_least_float32(inputs) * scale + shift
        return ops.cast(outputs, self.compute_dtype)

    def _fused(self, inputs):
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
        self._record(mean, unbiased, seen=1.0)
        return ops.reshape(outputs, shape)

    def _as_maps(self, inputs):
        return ops.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))

    def _record(self, mean, variance, seen):
        """Moves the statistics by `1 - momentum`, or not at all where seen is 0."""
        if not getattr(_STATE, "recording", True):
            return
        rate = (1.0 - self.momentum) * seen
        for moving, new in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            new = ops.cast(new, moving.dtype)
            # A NaN would stay for good, also where the step that met it is skipped.
            new = ops.where(ops.isfinite(new), new, moving)
            moving.assign(moving + (new - moving) * rate)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }
