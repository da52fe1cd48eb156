"""What an encoder must be: images in, one channels-last map out, nothing hidden."""

from __future__ import annotations

import contextlib
import contextvars
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import keras
import tensorflow as tf

from slotcon_tf.devices import HALF_DTYPES

_Model = TypeVar("_Model", bound=keras.Model)
_LOADING = contextvars.ContextVar("loading", default=False)
_NEED = (
    "encoder must map images (batch, height, width, 3) to one channels-last "
    "feature map (batch, H, W, channels)."
)
# Layers that bring grey levels to a network's own range.
_PREPROCESSING = ("Rescaling", "Normalization", "ImageNetNormalization")
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan")


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """In it, what a saved model holds is warned of where a new one is refused.

    Nobody can mend it any more, and it may come from days with fewer checks.

    Example:
        >>> with warnings.catch_warnings(), loading():
        ...     warnings.simplefilter("ignore")
        ...     check_policy(keras.DTypePolicy("float16"))
    """
    token = _LOADING.set(True)
    try:
        yield
    finally:
        _LOADING.reset(token)


def _refuse(text: str) -> None:
    if not _LOADING.get():
        raise ValueError(text)
    warnings.warn(f"Loaded as it was saved: {text}", stacklevel=2)


def as_encoder(model: _Model) -> _Model:
    """Checks that a Keras model maps normalised images to one channels-last map.

    Args:
        model: A built keras.Model with one input (B, height, width, 3) and one output
            (B, H, W, C), C known, whose layers can be copied from their configuration,
            and which does not scale its images itself.

    Returns:
        The model itself.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If its input, its output or a layer is something else; of layers it
            warns where a saved model is loaded.

    Example:
        >>> layers = [keras.Input((None, None, 3)), keras.layers.Conv2D(8, 4, 4)]
        >>> as_encoder(keras.Sequential(layers)).output_shape
        (None, None, None, 8)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{_NEED} Received: {model!r}, not a keras.Model. Take "
            "slotcon_tf.backbone('resnet50') or keras.applications.ResNet50("
            "include_top=False, weights=None)."
        )
    try:
        input_shape, output_shape = model.input_shape, model.output_shape
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"{_NEED} Received: {model.name!r}, whose shapes are not known yet. Make "
            "it a functional model, or wrap it in keras.Model(inputs, outputs)."
        ) from error
    _check_input(input_shape)
    _check_input_dtype(model)
    _check_output(getattr(model, "output", None), output_shape)
    for layer in model._flatten_layers():
        _check_layer(model, layer)
    _check_preprocessing(model)
    _check_scope(model)
    return model


def _check_scope(model: keras.Model) -> None:
    """A strategy cannot train variables that were made outside of its scope."""
    if not tf.distribute.has_strategy():
        return
    extended = tf.distribute.get_strategy().extended
    if not all(extended.variable_created_in_scope(v.value) for v in model.variables):
        raise ValueError(
            "encoder must be made in the scope of the strategy that trains it. "
            f"Received: {model.name!r}, made outside. Build or load it inside "
            "`with strategy.scope():` as well."
        )


def _check_input(shape: Any) -> None:
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"{_NEED} Received: inputs of shape {shape}.")
    if shape[-1] != 3:
        raise ValueError(
            f"{_NEED} Received: inputs of shape {shape}. Set the image data "
            "format to channels_last and the number of channels to 3."
        )


def _check_input_dtype(model: keras.Model) -> None:
    inputs = getattr(model, "inputs", None) or ()
    for each in inputs:
        if not keras.backend.is_float_dtype(each.dtype):
            raise ValueError(
                "encoder must take normalised images, floats. Received: "
                f"{model.name!r} with inputs of {each.dtype}. Build it with "
                "keras.Input(shape), without that dtype."
            )


def _check_output(output: Any, shape: Any) -> None:
    received = f"{_NEED} Received: outputs of shape {shape}."
    if isinstance(output, dict):
        name = list(output)[-1]
        raise ValueError(
            f"{received} Choose one: keras.Model(encoder.input, "
            f"encoder.output[{name!r}])."
        )
    if not isinstance(shape, tuple) or not all(
        isinstance(size, int | None) for size in shape
    ):
        raise ValueError(
            f"{received} Choose one: keras.Model(encoder.input, encoder.output[-1])."
        )
    if len(shape) == 3:
        raise ValueError(
            f"{received} These are tokens: leave out class and register tokens, and "
            "bring the rest to a map with keras.layers.Reshape((H, W, channels))."
        )
    if len(shape) != 4:
        raise ValueError(
            f"{received} Leave out the classifier and the pooling "
            "(include_top=False, pooling=None), and choose one output of several."
        )
    if shape[-1] is None:
        raise ValueError(f"{_NEED} Received: outputs of unknown channels.")


def _check_layer(model: keras.Model, layer: keras.Layer) -> None:
    if isinstance(layer, keras.layers.Lambda):
        _refuse(
            "encoder must be made of layers that can be copied from their "
            "configuration, for the teacher and when it is loaded. Received: "
            f"{model.name!r} with the Lambda layer {layer.name!r}, which holds code. "
            "Write it as a keras.layers.Layer with a call of its own."
        )
    if _moves_pixels(layer):
        _refuse(
            "encoder must leave pixels where they are, and their values: views are "
            "cropped, flipped and coloured before it, and aligned by what was done. "
            f"Received: {model.name!r} with the layer {layer.name!r}, a "
            f"{type(layer).__name__}. Leave it out."
        )
    if getattr(layer, "quantization_mode", None):
        _refuse(
            "encoder must hold weights that learn. Received: "
            f"{model.name!r} with the layer {layer.name!r}, quantized to "
            f"{layer.quantization_mode}. Take the model before quantize()."
        )
    if getattr(layer, "data_format", None) == "channels_first":
        _refuse(
            f"{_NEED} Received: {model.name!r} with the layer {layer.name!r}, which "
            "is channels_first. Build it with data_format='channels_last', or after "
            "keras.config.set_image_data_format('channels_last')."
        )


def _moves_pixels(layer: keras.Layer) -> bool:
    """Whether a layer changes images as augmentation does."""
    place = type(layer).__module__
    if ".preprocessing." not in place or not place.startswith("keras"):
        return False
    kind = type(layer).__name__
    if kind == "Resizing":
        return layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio
    return "image_preprocessing" in place or kind.startswith("Random")


def _check_preprocessing(model: keras.Model) -> None:
    """Refuses what scales images: they come normalised, and would be scaled twice."""
    found = []
    for part in _in_order(model):
        kind = type(part).__name__
        is_layer = isinstance(part, keras.layers.Layer)
        if kind in _PREPROCESSING or (kind in _ARITHMETIC and not is_layer):
            found.append(part)
        elif is_layer and part._trainable_variables:
            break  # what scales behind the first weights is the network's own affair
    if not found:
        return
    _refuse(
        "encoder must take normalised images, with ImageNet's mean and standard "
        f"deviation. Received: {model.name!r}, which scales images itself "
        f"({', '.join(part.name for part in found)}). {_without(model, found[-1])}"
        "Where it has such an argument, build it with include_preprocessing=False "
        "(EfficientNetV2, ConvNeXt and MobileNetV3 of keras.applications) or "
        "include_rescaling=False (keras-cv, keras-hub)."
    )


def _in_order(model: Any) -> Iterator[Any]:
    """Layers and operations of a model, those of nested models too, from the input."""
    parts = getattr(model, "operations", None) or getattr(model, "layers", None)
    if parts is None:  # a composite layer
        parts = model._layers
    for part in parts:
        if isinstance(part, keras.layers.Layer) and part._layers:
            if part._trainable_variables:
                yield part
            yield from _in_order(part)
        else:
            yield part


def _without(model: keras.Model, last: Any) -> str:
    """How a model is cut behind its preprocessing, where it can be."""
    layers = [layer for layer in model.layers if layer is not last]
    for layer in layers:
        try:
            after = layer.input is last.output
        except (AttributeError, ValueError):
            continue
        if after:
            return (
                f"Take keras.Model(encoder.get_layer({layer.name!r}).input, "
                "encoder.output). "
            )
    return ""


def check_policy(policy: keras.DTypePolicy) -> None:
    """Refuses a policy in which weights are too coarse for a moving average.

    Args:
        policy: keras.DTypePolicy.

    Raises:
        ValueError: If its variables are float16, bfloat16 or quantized; a warning
            where a saved model is loaded.

    Example:
        >>> check_policy(keras.DTypePolicy("mixed_bfloat16"))
    """
    if isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy):
        _refuse(
            "Weights must learn. Received: the quantized dtype policy "
            f"{policy.name!r}. Take float32 or mixed_bfloat16; quantize what is served."
        )
    if policy.variable_dtype in HALF_DTYPES:
        _refuse(
            "Weights must be float32 or float64: the teacher's steps of 1% and less "
            f"are lost in {policy.variable_dtype}. Received: the dtype policy "
            f"{policy.name!r}. Take mixed_{policy.variable_dtype}."
        )


def in_policy(encoder: _Model, policy: keras.DTypePolicy, asked: bool) -> _Model:
    """Brings an encoder to the policy of the model that it goes into.

    Args:
        encoder: Of `as_encoder`.
        policy: keras.DTypePolicy of the model.
        asked: Whether the user has given it; the encoder keeps its own otherwise.

    Returns:
        The encoder.

    Raises:
        ValueError: If it keeps its weights in another dtype than the policy's, or in
            a half one, or computes in float16 where no loss is scaled.

    Example:
        >>> layers = [keras.Input((None, None, 3)), keras.layers.Conv2D(8, 4, 4)]
        >>> policy = keras.DTypePolicy("mixed_bfloat16")
        >>> in_policy(keras.Sequential(layers), policy, asked=True).compute_dtype
        'bfloat16'
    """
    # Not the policy of the model, which is lost where it is loaded.
    layers = [x for x in encoder._flatten_layers() if x._trainable_variables]
    for layer in layers:
        check_policy(layer.dtype_policy)
    computes = {layer.compute_dtype for layer in layers}
    if asked and layers and policy.compute_dtype not in computes:
        own = layers[0].dtype_policy
        if own.variable_dtype != policy.variable_dtype:
            raise ValueError(
                "The encoder must keep its weights in the dtype of the model. "
                f"Received: dtype={policy.name!r} for {encoder.name!r} in "
                f"{own.name!r}. Build the encoder with dtype={policy.name!r}, or "
                "after keras.config.set_dtype_policy."
            )
        for layer in encoder._flatten_layers():
            # A layer that has a policy of its own has a reason for it.
            is_input = isinstance(layer, keras.layers.InputLayer)
            if layer.dtype_policy.name == own.name and not is_input:
                layer.dtype_policy = policy
    halves = [
        layer
        for layer in encoder._flatten_layers()
        if layer.compute_dtype == "float16" and layer.variable_dtype == "float32"
    ]
    if halves and policy.name != "mixed_float16":
        _refuse(
            "An encoder that computes in float16 needs its loss scaled. Received: "
            f"{encoder.name!r} in {encoder.dtype_policy.name!r} for a model in "
            f"{policy.name!r}. Give SlotCon(dtype='mixed_float16')."
        )
    return encoder
