"""Batch normalisation folded into the convolutions before it, for serving."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from slotcon_tf.encoders.convolution import Conv2D
from slotcon_tf.training.normalization import BatchNormalization

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Dense)
_NORMALIZATIONS = (BatchNormalization, keras.layers.BatchNormalization)


def can_fold(encoder: Any) -> bool:
    """Whether the model is functional: its layers, and what goes between, are known.

    Example:
        >>> can_fold(keras.layers.Dense(3))
        False
    """
    return hasattr(encoder, "operations")


def fold_batch_norm(encoder: keras.Model, dtype: str = "float32") -> keras.Model:
    """A model that computes the same in inference, without normalisation layers.

    With moving statistics, `gamma * (conv(x) - mean) / sqrt(variance + epsilon) + beta`
    is a convolution again: its kernel times a factor per channel, plus a bias. Layers
    keep their names; a normalisation that follows no convolution, or one whose output
    goes elsewhere too, stays.

    Args:
        encoder: Functional Keras model (a `slotcon_tf.ResNet`, keras.applications ...).
        dtype: Of the copy's weights and computation: "float32" or "bfloat16".

    Returns:
        Functional keras.Model of the same inputs and outputs, not for training.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
        >>> folded = fold_batch_norm(keras.Model(images, maps))
        >>> [type(layer).__name__ for layer in folded.layers]
        ['InputLayer', 'Conv2D']
    """
    folds = {fold.name: norm for norm, fold in _pairs(encoder)}
    gone = {norm.name for norm in folds.values()}

    def clone(layer):
        config = layer.get_config()
        if "dtype" in config and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = dtype
        if layer.name in folds:
            config |= {"use_bias": True, "bias_initializer": "zeros"}
        # Keras's own, without the gradients that training needs.
        kind = keras.layers.Conv2D if isinstance(layer, Conv2D) else type(layer)
        return kind.from_config(config)

    def call(layer, *inputs, **kwargs):
        return inputs[0] if layer.name in gone else layer(*inputs, **kwargs)

    # Plain: Keras 3.10 calls a subclass's constructor with inputs and outputs.
    plain = keras.Model(encoder.input, encoder.output, name=encoder.name)
    folded = keras.models.clone_model(plain, clone_function=clone, call_function=call)
    for layer in encoder.layers:
        if layer.name in folds:
            weights = folded_weights(layer, folds[layer.name])
        elif layer.weights and layer.name not in gone:
            weights = layer.get_weights()
        else:
            continue
        folded.get_layer(layer.name).set_weights(weights)
    return folded


def _pairs(encoder):
    """(normalisation, layer before it) for every pair that may be folded."""
    for norm in encoder.layers:
        if not isinstance(norm, _NORMALIZATIONS):
            continue
        before = norm.input._keras_history.operation  # pyright: ignore[reportAttributeAccessIssue]
        # Depthwise and separable ones are Conv2D's siblings, not its subclasses.
        plain = isinstance(before, _CONVOLUTIONS)
        linear = plain and before.activation is keras.activations.linear
        linear &= getattr(norm, "axis", -1) in (-1, len(norm.input.shape) - 1)  # pyright: ignore[reportAttributeAccessIssue]
        if linear and len(before._outbound_nodes) == len(norm._inbound_nodes) == 1:
            yield norm, before


def folded_weights(layer: Any, norm: Any) -> list[np.ndarray]:
    """Kernel and bias of the convolution that does both; computed in float64.

    Args:
        layer: A built convolution or dense layer.
        norm: The built normalisation of its channels.

    Example:
        >>> layer, norm = keras.layers.Dense(2), keras.layers.BatchNormalization()
        >>> _ = norm(layer(np.ones((1, 3))))
        >>> [weights.shape for weights in folded_weights(layer, norm)]
        [(3, 2), (2,)]
    """
    mean, variance = (
        np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance)
    )
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        factor *= np.asarray(norm.gamma, np.float64)
    bias = -mean
    if getattr(layer, "bias", None) is not None:
        bias += np.asarray(layer.bias, np.float64)
    bias *= factor
    if norm.beta is not None:
        bias += np.asarray(norm.beta, np.float64)
    # Channels are the last axis of every kernel that is folded here.
    return [np.asarray(layer.kernel, np.float64) * factor, bias]
