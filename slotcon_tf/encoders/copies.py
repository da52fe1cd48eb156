"""Copies of encoders and other models, with weights of their own."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, TypeVar

import keras

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.errors import first_line
from slotcon_tf.images.statistics import ImageStatistics

_Model = TypeVar("_Model", bound=keras.Model)


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


def with_stride(
    encoder: ResNet, output_stride: int, *, contract_dilation: bool = False
) -> ResNet:
    """A copy of a ResNet whose last stages stride or dilate otherwise, trainable.

    Args:
        encoder: A `slotcon_tf.ResNet`.
        output_stride, contract_dilation: Of the copy, as `ResNet` takes them.

    Returns:
        A `slotcon_tf.ResNet` with the same weights, for images of any size, in the
        precision of the present policy.

    Example:
        >>> from slotcon_tf import backbone
        >>> with_stride(backbone("resnet10", width=8), 8).output_stride
        8
    """
    config = encoder.get_config()
    config |= {"output_stride": output_stride, "contract_dilation": contract_dilation}
    config |= {"input_shape": (None, None, 3), "trainable": True, "dtype": None}
    copy = ResNet.from_config(config)
    copy.set_weights(encoder.get_weights())
    return copy


def strided(encoder: ResNet) -> ResNet:
    """A copy of a ResNet of output stride 32, where that computes the same.

    Of an encoder that was dilated for segmentation (`contract_dilation`) it does: the
    strided map is every second or fourth position of the dilated one. One that was
    pretrained at a finer stride has learned weights for other neighbours.

    Args:
        encoder: A `slotcon_tf.ResNet`.

    Returns:
        As `with_stride`.

    Raises:
        ValueError: If its strided copy would compute something else.

    Example:
        >>> from slotcon_tf import backbone
        >>> fine = {"output_stride": 16, "contract_dilation": True}
        >>> strided(backbone("resnet10", width=8, **fine)).output_stride
        32
    """
    finer = encoder.output_stride < 32
    # The _d forms average neighbours in a shortcut that strides, and there alone.
    pools = encoder.avg_pool_shortcut
    if finer and (pools or not encoder.contract_dilation):
        raise ValueError(
            "The encoder must have an exact twin of output stride 32. Received: "
            f"{encoder.name!r}, whose last stages learned dilated "
            f"(output_stride={encoder.output_stride})."
        )
    return with_stride(encoder, 32)


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
