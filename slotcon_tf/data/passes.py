"""Passes over an endless stream: each goes on where the one before ended."""

import itertools

import numpy as np
import tensorflow as tf

EACH = "each"  # one epoch a pass


def pass_length(epochs, steps, start_step):
    """Steps of a pass over `crop_pair_dataset`; None for an endless one.

    Args:
        epochs: `EACH`, a number or None, as `crop_pair_dataset` takes it.
        steps: Of an epoch.
        start_step: Where the first pass begins.

    Raises:
        ValueError: If it is something else.
    """
    if epochs is None:
        return None
    if epochs == EACH:
        return steps
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer):
        raise ValueError(
            f"epochs must be {EACH!r}, a whole number, or None for an endless stream. "
            f"Received: epochs={epochs!r}."
        )
    return max(int(epochs) * steps - start_step, 0)


def passes(positions, start_step, length, batch_size):
    """Dataset of the elements of one pass, other ones every time it is iterated.

    Args:
        positions: Function of a step, a number or a tensor, that returns the endless
            dataset from there on.
        start_step: Where the first pass begins.
        length: Steps of a pass; None for an endless one, always from `start_step` on.
        batch_size: Elements of a step.
    """
    if length is None:
        return positions(start_step)
    count = itertools.count()  # its `next` is one operation: threads share it

    def first_step(_):
        number = tf.numpy_function(lambda: np.int64(next(count)), [], tf.int64)
        return start_step + tf.ensure_shape(number, []) * length

    # AutoGraph has nothing to convert here.
    @tf.autograph.experimental.do_not_convert
    def one_pass(step):
        return positions(step).take(length * batch_size)

    return tf.data.Dataset.range(1).map(first_step).flat_map(one_pass)
