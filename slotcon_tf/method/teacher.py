"""The teacher: a copy of the student that follows it as a moving average."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any, TypeVar

import keras
import tensorflow as tf
from keras import ops

from slotcon_tf.errors import first_line
from slotcon_tf.images.statistics import ImageStatistics
from slotcon_tf.training.updates import subtract_scaled
from slotcon_tf.types import Tensor, Variable

_Model = TypeVar("_Model", bound=keras.Model)


def teacher_update_rate(
    step: Tensor, total_steps: float, base_momentum: float
) -> Tensor:
    """`1 - momentum` of the teacher at a step; it falls from `1 - base_momentum` to 0.

    The rate and not the momentum is computed, since float32 holds 1e-4 far better
    than 0.9999.

    Args:
        step: Number of steps done so far, a scalar tensor or number.
        total_steps: The rate reaches 0 here, and stays there.
        base_momentum: Momentum at step 0 (0.99).

    Returns:
        Scalar float tensor.

    Reference: Wen et al. 2022 (arXiv 2205.15288), appendix A; the cosine is BYOL's.

    Example:
        >>> [round(float(teacher_update_rate(s, 10, 0.99)), 4) for s in (0, 5, 10, 11)]
        [0.01, 0.005, 0.0, 0.0]
    """
    progress = ops.minimum(ops.cast(step, keras.config.floatx()) / total_steps, 1.0)
    return (1.0 - base_momentum) * (ops.cos(math.pi * progress) + 1.0) / 2.0


def update_teacher(
    teacher_variables: list[Variable], student_variables: list[Variable], rate: Tensor
) -> None:
    """Moves each teacher variable towards its student by `rate`, in place.

    Args:
        teacher_variables, student_variables: Lists of variables of equal shapes.
        rate: `1 - momentum`, scalar.

    Example:
        >>> teacher, student = keras.Variable([0.0]), keras.Variable([10.0])
        >>> update_teacher([teacher], [student], 0.1)
        >>> teacher.numpy().tolist()
        [1.0]
    """
    for teacher, student in zip(teacher_variables, student_variables, strict=True):
        subtract_scaled(teacher, rate, tf.subtract(teacher, student))


def twin(model: _Model) -> _Model:
    """A model of the same class and configuration, with weights of its own.

    keras.models.clone_model would turn a ResNet into a plain functional model, without
    its pyramid.

    Args:
        model: A Keras model; classes and functions of a user's script need not be
            registered.

    Raises:
        ValueError: If its configuration does not make such a model.

    Example:
        >>> from slotcon_tf import backbone
        >>> type(twin(backbone("resnet10", width=8))).__name__
        'ResNet'
    """
    try:
        with keras.saving.custom_object_scope(_own_objects(model)):
            copy: Any = type(model).from_config(model.get_config())
    except (
        AttributeError,
        KeyError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as error:
        raise _not_copied(model, first_line(error, 300)) from error
    kinds = [[type(layer) for layer in m._flatten_layers()] for m in (model, copy)]
    shapes = [[tuple(v.shape) for v in m.variables] for m in (model, copy)]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        raise _not_copied(model, "its configuration makes other layers")
    if set(map(id, model.variables)) & set(map(id, copy.variables)):
        raise _not_copied(model, "its configuration holds the layers themselves")
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        # Not every configuration holds it.
        is_input = isinstance(new, keras.layers.InputLayer)
        if not is_input and new.dtype_policy.name != old.dtype_policy.name:
            new.dtype_policy = old.dtype_policy
    if hasattr(model, "statistics"):
        copy.statistics = model.statistics
    return copy


def free_copy(encoder: _Model, statistics: ImageStatistics) -> _Model:
    """A copy of an encoder and its weights, trainable, that goes its own way.

    Args:
        encoder: Any.
        statistics: That its images are normalised with. It warns of others than
            ImageNet's where the copy's file would not keep them.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> copy = free_copy(encoder, encoder.statistics)
        >>> bool((copy.get_weights()[0] == encoder.get_weights()[0]).all())
        True
    """
    copy = twin(encoder)
    copy.set_weights(encoder.get_weights())
    for layer in copy._flatten_layers():
        layer.trainable = True  # set on the model alone, it may reach none of them
    copy.statistics = statistics
    kept, own = copy.get_config(), statistics.config()
    if any(kept.get(name) != value for name, value in own.items()):
        given = ", ".join(f"{name}={tuple(own[name])}" for name in own)
        warnings.warn(
            f"The encoder's images are normalised with {given}, which a file of "
            f"{type(copy).__name__} does not keep. Save the whole model, or set "
            "encoder.statistics = slotcon_tf.images.statistics.ImageStatistics("
            f"{given}) after loading.",
            stacklevel=3,
        )
    return copy


def _not_copied(model: keras.Model, received: str) -> ValueError:
    return ValueError(
        "A model must be one that Keras can copy from its configuration: the teacher "
        f"is a copy of the student. Received: {model.name!r}, a "
        f"{type(model).__name__}: {received}. Give its class a get_config with the "
        "constructor's arguments, or make it a functional keras.Model."
    )


def _own_objects(model: keras.Model) -> dict[str, Any]:
    """Dict of name to what a user's script has defined and not registered."""
    nested = (
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
    )
    found = {}
    for layer in model._flatten_layers():
        for value in (layer, *vars(layer).values()):
            if inspect.isfunction(value):
                kind = value
            elif value is layer or isinstance(value, nested):
                kind = type(value)
            else:
                continue
            registered = keras.saving.get_registered_name(kind) != kind.__name__
            if not registered and kind.__module__.partition(".")[0] != "keras":
                found[kind.__name__] = kind
    return found


def copy_trainable(source: keras.Layer, target: keras.Layer) -> None:
    """Freezes the layers of one model that are frozen in another of the same layers.

    Example:
        >>> from slotcon_tf import backbone
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
