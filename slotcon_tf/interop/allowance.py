"""How much a file may ask for: not much more than it holds itself."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from slotcon_tf.interop.pickles import CheckpointFileError

# Beyond what the file holds: parts that are built and thrown away, copies of a teacher,
# metrics. A whole model of ResNet-50 has 0.4 GB.
_SPARE_BYTES = 1 << 26
_SPARE_ARRAYS = 200
_TIMES = 4


def allowed_bytes(held: int) -> int:
    """Bytes that a file of so many may ask for.

    Example:
        >>> allowed_bytes(1_000_000)  # four times as many, and 64 MiB
        71108864
    """
    return _SPARE_BYTES + _TIMES * held


@contextlib.contextmanager
def variables_within(path: str | os.PathLike, held: int, arrays: int) -> Iterator[None]:
    """Stops the building of a model whose variables a file cannot hold.

    A variable is looked at before its memory is taken.

    Args:
        path: Of the file, for the message.
        held: Its bytes.
        arrays: How many arrays it holds.

    Raises:
        CheckpointFileError: From within, at the first variable that is too much.

    Example:
        >>> import keras
        >>> with variables_within("small.keras", held=1000, arrays=2):
        ...     keras.layers.Dense(4).build((None, 3))
        >>> with variables_within("small.keras", held=1000, arrays=2):
        ...     keras.layers.Dense(10**6).build((None, 10**6))
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: small.keras must hold ...
    """
    most, most_arrays = allowed_bytes(held), _SPARE_ARRAYS + 2 * arrays
    asked = count = 0
    refused = None

    def creator(create, **kwargs):
        nonlocal asked, count, refused
        asked += _size(kwargs)
        count += 1
        if asked > most or count > most_arrays:
            refused = CheckpointFileError(
                f"{path} must hold the weights that it describes. Received: a model of "
                f"{count:,} arrays or more with {asked:,} bytes, in a file that holds "
                f"{arrays:,} arrays and {held:,} bytes. Fetch it again, from whom you "
                "trust."
            )
            raise refused
        return create(**kwargs)

    try:
        with tf.variable_creator_scope(creator):
            yield
    except Exception as error:
        if refused is None or error is refused:
            raise
        raise refused from error  # Keras says its own around it


def _size(kwargs):
    """Bytes of a variable that is about to be made."""
    value: Any = kwargs["initial_value"]
    value = _dry(value) if callable(value) else value
    return math.prod(value.shape) * value.dtype.size


def _dry(initial_value):
    """What an initializer gives, where nothing is computed but the shape."""
    try:
        with tf.Graph().as_default():  # it is thrown away
            return tf.convert_to_tensor(initial_value())
    except Exception:  # noqa: BLE001  one that holds state: only a function's may
        function = tf.function(initial_value, autograph=False)
    try:
        return function.get_concrete_function().outputs[0]
    except Exception:  # noqa: BLE001  one of somebody's own, for eager mode
        return tf.convert_to_tensor(initial_value())
