"""What an encoder's own layers add to the loss: regularizers, and losses of outputs."""

from __future__ import annotations

from collections.abc import Iterable

import keras
from keras import ops

from slotcon_tf.devices import at_least_float32
from slotcon_tf.training import replicas
from slotcon_tf.types import Tensor, Variable


def is_regularized(encoder: keras.Model) -> bool:
    """Whether layers add losses, as far as that is known before they are called.

    Example:
        >>> dense = keras.layers.Dense(2, kernel_regularizer="l2")
        >>> is_regularized(keras.Sequential([keras.Input((3,)), dense]))
        True
    """
    return any(v.regularizer is not None for v in encoder.weights) or any(
        getattr(layer, "activity_regularizer", None) is not None
        for layer in encoder._flatten_layers()
    )


def losses_of_call(encoder: keras.Model, remat: bool = False) -> list[Tensor]:
    """What the encoder's layers have just added to the loss, of their outputs.

    Args:
        encoder: Was called the moment before.
        remat: Whether it was called by `slotcon_tf.training.memory.rematerialize`.

    Returns:
        Scalars, float32 or better.

    Raises:
        ValueError: If there are any with `remat`, or on several replicas.

    Example:
        >>> layer = keras.layers.ActivityRegularization(l1=0.5)
        >>> encoder = keras.Sequential([keras.Input((3,)), layer])
        >>> _ = encoder(ops.ones((1, 3)))
        >>> [float(loss) for loss in losses_of_call(encoder)]
        [1.5]
    """
    layers = [x for x in encoder._flatten_layers() if x._get_own_losses()]
    names = ", ".join(layer.name for layer in layers)
    if names and remat:
        raise ValueError(
            "remat cannot recompute layers that add losses of their outputs. "
            f"Received: an encoder whose layers {names} do. Set remat=False."
        )
    if names and replicas.num_replicas() > 1:
        # Keras keeps them in the layers, where replicas overwrite each other's.
        raise ValueError(
            "Several replicas need an encoder that adds no losses of its outputs. "
            f"Received: an encoder whose layers {names} do. Train on one replica, "
            "take kernel_regularizer, or add the loss in a subclass's "
            "compute_losses."
        )
    losses = [loss for layer in layers for loss in layer._get_own_losses()]
    return [at_least_float32(ops.sum(loss)) for loss in losses]


def losses_of_weights(weights: Iterable[Variable]) -> list[Tensor]:
    """What the regularizers of weights give: scalars, float32 or better.

    Example:
        >>> dense = keras.layers.Dense(2, kernel_regularizer="l2")
        >>> dense.build((None, 3))
        >>> len(losses_of_weights(dense.trainable_weights))
        1
    """
    return [
        at_least_float32(v.regularizer(v)) for v in weights if v.regularizer is not None
    ]
