"""Which layers of a model are frozen, from one model and process to another."""

from __future__ import annotations

from typing import Any

import keras


def copy_trainable(source: keras.Layer, target: keras.Layer) -> None:
    """Freezes the layers of one model that are frozen in another of the same layers.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.encoders.copies import twin
        >>> student = backbone("resnet10", width=8)
        >>> teacher = twin(student)
        >>> student.get_layer("conv1").trainable = False
        >>> copy_trainable(student, teacher)
        >>> teacher.get_layer("conv1").trainable
        False
    """
    pairs = zip(source._flatten_layers(), target._flatten_layers(), strict=True)
    for old, new in pairs:
        # From outside to inside: a layer's flag is also put on what it holds.
        new.trainable = old.trainable


def frozen_layers(part: keras.Layer) -> list[list[Any]]:
    """The frozen layers of a layer, itself included: lists of place and class.

    Names would not do: those that Keras gives differ from process to process.

    Example:
        >>> part = keras.Sequential([keras.layers.Dense(2), keras.layers.ReLU()])
        >>> part.layers[0].trainable = False
        >>> frozen_layers(part)
        [[1, 'Dense']]
    """
    layers = part._flatten_layers()
    return [[n, type(x).__name__] for n, x in enumerate(layers) if not x.trainable]


def freeze_layers(part: keras.Layer, frozen: list[list[Any]]) -> None:
    """Freezes the layers that `frozen_layers` has told, and no others.

    Raises:
        ValueError: If other layers are in these places.

    Example:
        >>> part = keras.Sequential([keras.layers.Dense(2), keras.layers.ReLU()])
        >>> freeze_layers(part, [[1, "Dense"]])
        >>> [layer.trainable for layer in part.layers]
        [False, True]
    """
    layers = part._flatten_layers()
    for place, kind in frozen:
        found = type(layers[place]).__name__ if place < len(layers) else "nothing"
        if found != kind:
            raise ValueError(
                "Frozen layers must be found again in a saved model. Received: "
                f"{found} in place of the {kind} at {place} of {part.name!r}. Load it "
                "with the version of Keras that wrote it."
            )
    places = {place for place, _ in frozen}
    for number, layer in enumerate(layers):
        layer.trainable = number not in places


def parameters_of(part: keras.Layer) -> set[int]:
    """Ids of the variables that learn where nothing is frozen.

    Not moving statistics and random seeds. The flag `trainable` cannot tell: layers
    may be frozen, and the teacher's variables all are.

    Example:
        >>> norm = keras.layers.BatchNormalization()
        >>> norm.build((None, 3))
        >>> len(norm.variables), len(parameters_of(norm))
        (4, 2)
    """
    layers = part._flatten_layers()
    return {id(v) for layer in layers for v in layer._trainable_variables}
