"""A detector without normalisation layers, for serving."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.pyramid import LEVELS
from slotcon_tf.serving.folding import fold_batch_norm, folded_weights
from slotcon_tf.types import Tensor

_PARTS = ("pyramid", "proposal_head", "box_head", "mask_head")


def fold_detector(model: MaskRCNN, dtype: str = "float32") -> MaskRCNN:
    """A detector that finds the same, its batch normalisation folded everywhere.

    Args:
        model: A `MaskRCNN`.
        dtype: Of the copy's encoder, weights and computation: "float32" or "bfloat16".
            The pyramid and the heads stay as they are: places of regions need all of
            float32's digits.

    Returns:
        `MaskRCNN`, not for training.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "max_detections": 3}
        >>> names = ("cat", "dog")
        >>> model = MaskRCNN(backbone("resnet10", width=8), class_names=names, **sizes)
        >>> "moving_mean" in str([w.path for w in fold_detector(model).weights])
        False
    """
    stages = {level: model.encoder.pyramid_outputs[level] for level in LEVELS}  # pyright: ignore[reportAttributeAccessIssue]
    stages = keras.Model(model.encoder.inputs, stages, name=model.encoder.name)
    encoder: Any = fold_batch_norm(stages, dtype)
    encoder.pyramid_outputs = dict(encoder.output)
    encoder.statistics = model.statistics
    settings = {k: v for k, v in model.get_config().items() if k != "encoder"}
    # As variables are: a mixed policy computes in half of them.
    settings["dtype"] = model.variable_dtype
    folded = MaskRCNN(encoder, **settings)
    for name in _PARTS:
        if getattr(model, name) is not None:
            getattr(folded, name).set_weights(getattr(model, name).get_weights())
    names = [f"{part}_{x.lower()}" for part in ("lateral", "output") for x in LEVELS]
    for name in names:
        _fold(folded.pyramid, name, f"{name}_bn")
    for head in filter(None, (folded.box_head, folded.mask_head)):
        for i in range(head.num_convs):
            _fold(head, f"conv{i}", f"bn{i}")
    return folded


def _fold(owner: Any, name: str, norm_name: str) -> None:
    layer, norm = getattr(owner, name), getattr(owner, norm_name)
    kernel, bias = folded_weights(layer, norm)
    layer.kernel.assign(kernel)
    shift = _Shift(bias, dtype=norm.dtype_policy, name=norm_name)
    # A built layer takes no others; this one has the place of one that it had.
    owner._tracker.unlock()
    owner._tracker.untrack(norm)
    setattr(owner, norm_name, shift)
    owner._tracker.lock()


class _Shift(keras.layers.Layer):
    """What is left of a normalisation: a bias, which kernels of devices fuse."""

    def __init__(self, bias: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bias = self.add_weight(name="bias", shape=bias.shape, initializer="zeros")
        self.bias.assign(bias)
        self.built = True

    def call(self, inputs: Tensor, training: Any = None, mask: Any = None) -> Tensor:
        del training, mask
        return tf.nn.bias_add(inputs, tf.convert_to_tensor(self.bias))
