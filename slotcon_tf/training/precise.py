"""PreciseStatistics: moving statistics measured anew, of weights that stay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from slotcon_tf.training.callbacks import NonFiniteError
from slotcon_tf.training.normalization import BatchNormalization, gathering
from slotcon_tf.types import Tensor


class PreciseStatistics:
    """Pools the batch statistics of many batches into a model's moving statistics.

    `mean = sum n m / sum n; variance = sum n (v + m^2) / sum n - mean^2`, with mean m,
    biased variance v and number of rows n of each batch; taken together a batch at a
    time (Chan, Golub and LeVeque 1979), so that float32 is enough and no variance is
    negative. The moving averages of training lag behind the weights, and forget all
    but the last batches.

    Args:
        model: Whose layers of batch normalisation are meant. Made in the scope of its
            strategy.

    Example:
        >>> norm = BatchNormalization()
        >>> model = keras.Sequential([keras.Input((1,)), norm])
        >>> precise = PreciseStatistics(model)
        >>> for batch in ([[1.0], [3.0]], [[5.0], [7.0]]):
        ...     with precise.gathering():
        ...         _ = model(tf.constant(batch), training=True)
        >>> precise.apply()
        >>> norm.moving_mean.numpy().tolist(), norm.moving_variance.numpy().tolist()
        ([4.0], [5.0])

    Reference: Wu and Johnson 2021 (arXiv 2105.07576); fvcore's update_bn_stats.
    """

    def __init__(self, model: keras.Model) -> None:
        self.layers = [
            layer
            for layer in model._flatten_layers()  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(layer, BatchNormalization) and layer.trainable
        ]
        self._pooled = {}
        for layer in self.layers:
            zeros = tf.zeros(layer.moving_mean.shape, layer.variable_dtype)
            # Global statistics: every replica has the same.
            own = {
                "trainable": False,
                "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
            }
            self._pooled[id(layer)] = (
                tf.Variable(zeros, **own),
                tf.Variable(zeros, **own),
                tf.Variable(zeros[:1], **own),
            )

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Context of a batch in training mode; moving statistics stay meanwhile."""
        with gathering(self._take):
            yield

    def _take(
        self, layer: BatchNormalization, mean: Tensor, variance: Tensor, count: Tensor
    ) -> None:
        pooled = self._pooled.get(id(layer))
        if pooled is None:
            return
        of_mean, of_variance, of_count = pooled
        mean, variance, count = (
            tf.cast(x, of_mean.dtype) for x in (mean, variance, count)
        )
        # Of one batch: what it has, to the last bit.
        share = tf.math.divide_no_nan(count, of_count + count)  # (1,)
        rest, apart = 1.0 - share, mean - of_mean
        within = rest * of_variance + share * variance
        of_variance.assign(within + share * rest * apart**2)
        of_mean.assign_add(share * apart)
        of_count.assign_add(tf.reshape(count, [1]))

    def check(self) -> None:
        """Looks at what was gathered.

        Raises:
            NonFiniteError: If a part of it is NaN or infinite; all is forgotten then.

        Example:
            >>> norm = BatchNormalization()
            >>> precise = PreciseStatistics(keras.Sequential([keras.Input((1,)), norm]))
            >>> with precise.gathering():
            ...     _ = norm(tf.constant([[1.0], [float("inf")]]), training=True)
            >>> precise.check()  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            slotcon_tf.training.callbacks.NonFiniteError: Batch statistics must be ...
        """
        for layer in self.layers:
            mean, variance, _ = self._pooled[id(layer)]
            if not bool(tf.reduce_all(tf.math.is_finite(mean + variance))):
                self.reset()
                raise NonFiniteError(
                    "Batch statistics must be finite. Received: NaN or infinity in "
                    f"{layer.path}. What training has saved stays. Start another "
                    "`workdir` with a lower `learning_rate`, or with precision=float32."
                )

    def reset(self) -> None:
        """Forgets what was gathered."""
        for variables in self._pooled.values():
            for one in variables:
                one.assign(tf.zeros_like(one))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which what was gathered is the moving statistics, and no longer.

        Example:
            >>> norm = BatchNormalization()
            >>> precise = PreciseStatistics(keras.Sequential([keras.Input((1,)), norm]))
            >>> with precise.gathering():
            ...     _ = norm(tf.constant([[1.0], [3.0]]), training=True)
            >>> with precise.applied():
            ...     print(float(norm.moving_mean[0]))
            2.0
            >>> float(norm.moving_mean[0])
            0.0
        """
        moving = [v for x in self.layers for v in (x.moving_mean, x.moving_variance)]
        before = [variable.numpy() for variable in moving]
        self.apply()
        try:
            yield
        finally:
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)

    def apply(self) -> None:
        """Makes what was gathered the moving statistics; of no rows: they stay."""
        for layer in self.layers:
            mean, variance, count = (
                tf.convert_to_tensor(x) for x in self._pooled[id(layer)]
            )
            if not float(count[0]) > 0:
                continue
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
