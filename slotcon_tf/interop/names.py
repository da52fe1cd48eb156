"""Torch's names and layouts of the variables of an encoder and of a SlotCon model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.method.slotcon import SlotCon

# Where the stem is deep, the libraries name its layers differently.
DEEP_STEM = {
    "original": ("conv1.0.0", "conv1.0.1", "conv1.1.0", "conv1.1.1", "conv1.2", "bn1"),
    "timm": ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1"),
    "mmsegmentation": ("stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"),
}
_STEM = ("conv1_0_0", "conv1_0_1", "conv1_1_0", "conv1_1_1", "conv1_2", "bn1")
# Torch's order of a block's layers.
_BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
_BLOCK += ("downsample_conv", "downsample_bn")
_HEAD = {"dense_0": 0, "norm_0": 1, "dense_1": 3, "norm_1": 4, "dense_2": 6}
TRACKED = "num_batches_tracked"


@dataclass(frozen=True)
class _Layout:
    """A `Layout` that moves axes.

    Attributes:
        axes: Keras's axes in torch's order.
        before, after: Axes of length 1 that torch has in front of these, and behind.
    """

    axes: tuple
    before: int = 0
    after: int = 0

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        inner = tuple(shape[axis] for axis in self.axes)
        return (1,) * self.before + inner + (1,) * self.after

    def to_torch(self, value: Any) -> np.ndarray:
        value = np.asarray(value)
        shape = self.torch_shape(value.shape)
        return np.ascontiguousarray(value.transpose(self.axes)).reshape(shape)

    def to_keras(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        inner = [shape[axis] for axis in self.axes]
        return np.reshape(value, inner).transpose(np.argsort(self.axes))


VECTOR = _Layout((0,))
ROW = _Layout((0,), before=1)
TABLE = _Layout((0, 1))
CONV = _Layout((3, 2, 0, 1))
DENSE = _Layout((1, 0))
# A dense layer that is a 1x1 convolution in torch.
POINTWISE = _Layout((1, 0), after=2)


class Layout(Protocol):
    """How a Keras variable lies in torch.

    Example:
        >>> layout: Layout = DENSE
        >>> layout.torch_shape((3, 2))
        (2, 3)
    """

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]: ...

    def to_torch(self, value: Any) -> np.ndarray: ...

    def to_keras(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray: ...


@dataclass(frozen=True)
class Entry:
    """A variable, and its layout in torch.

    Example:
        >>> dense = keras.layers.Dense(2)
        >>> dense.build((None, 3))
        >>> entry = Entry(dense.kernel, DENSE)
        >>> entry.shape
        (2, 3)
        >>> entry.assign(np.ones((2, 3)))
        >>> dense.kernel.numpy().sum()
        np.float32(6.0)
    """

    variable: keras.Variable
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Torch's."""
        return self.layout.torch_shape(self.variable.shape)

    def to_torch(self) -> np.ndarray:
        """The value in torch's layout."""
        return self.layout.to_torch(self.variable)

    def assign(self, value: np.ndarray) -> None:
        """Takes over a value in torch's layout."""
        self.variable.assign(self.layout.to_keras(value, self.variable.shape))


def encoder_entries(encoder: ResNet, style: str = "original") -> dict[str, Entry]:
    """Torch's names of an encoder's variables, in torch's order.

    Args:
        encoder: A `slotcon_tf.ResNet`.
        style: "original", which is torchvision's too, "timm", "mmsegmentation" or
            "detectron2".

    Returns:
        Dict of name to `Entry`.

    Raises:
        ValueError: If the style has no name for a layer: detectron2 has no deep stem
            with average-pooled shortcuts.

    Example:
        >>> from slotcon_tf import backbone
        >>> entries = encoder_entries(backbone("resnet10", width=8), "detectron2")
        >>> list(entries)[:2]
        ['stem.conv1.weight', 'stem.conv1.norm.weight']
        >>> entries["stem.conv1.weight"].shape
        (8, 3, 7, 7)
    """
    if style == "detectron2" and (encoder.deep_stem or encoder.avg_pool_shortcut):
        raise ValueError(
            "detectron2's ResNet has neither the deep stem nor the average-pooled "
            f"shortcuts of {encoder.name!r}. Take mmsegmentation (ResNetV1d) or timm."
        )
    layers = [layer for layer in encoder.layers if layer.variables]
    found = {}
    for layer in sorted(layers, key=lambda layer: _place(layer.name)):
        found.update(_layer(layer, _module(layer.name, encoder, style)))
    return found


def _place(name):
    """Of a layer in torch's order."""
    if not name.startswith("layer"):
        return (0, 0, _STEM.index(name) if name != "conv1" else 0)
    stage, block, part = name.removeprefix("layer").split("_", 2)
    return (int(stage), int(block), _BLOCK.index(part))


def _module(name, encoder, style):
    """Torch's name of a layer of the encoder."""
    if not name.startswith("layer"):
        if encoder.deep_stem:
            return DEEP_STEM[style][_STEM.index(name)]
        name = {"bn1": "conv1.norm"}.get(name, name) if style == "detectron2" else name
        return f"stem.{name}" if style == "detectron2" else name
    stage, block, part = name.removeprefix("layer").split("_", 2)
    if style == "detectron2":
        part = part.replace("bn", "conv").replace("downsample_conv", "shortcut")
        norm = name.rpartition("_")[2].startswith("bn")
        return f"res{int(stage) + 1}.{block}.{part}" + (".norm" if norm else "")
    # The pooling takes the first place in the shortcut, also where it pools nothing.
    first = int(encoder.avg_pool_shortcut)
    part = part.replace("downsample_conv", f"downsample.{first}")
    part = part.replace("downsample_bn", f"downsample.{first + 1}")
    return f"layer{stage}.{block}.{part}"


def _layer(layer, name, dense=DENSE):
    if hasattr(layer, "moving_mean"):
        return {
            f"{name}.weight": Entry(layer.gamma, VECTOR),
            f"{name}.bias": Entry(layer.beta, VECTOR),
            f"{name}.running_mean": Entry(layer.moving_mean, VECTOR),
            f"{name}.running_var": Entry(layer.moving_variance, VECTOR),
        }
    layout = CONV if len(layer.kernel.shape) == 4 else dense
    found = {f"{name}.weight": Entry(layer.kernel, layout)}
    if getattr(layer, "bias", None) is not None:
        found[f"{name}.bias"] = Entry(layer.bias, VECTOR)
    return found


def model_entries(model: SlotCon) -> dict[str, Entry]:
    """The original's names of a SlotCon model's variables, in its order.

    Args:
        model: `slotcon_tf.SlotCon` with a `slotcon_tf.ResNet`.

    Returns:
        Dict of name, without `module.`, to `Entry`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> entries = model_entries(model)
        >>> entries["grouping_k.slot_embed.weight"].shape
        (4, 4)
    """
    found = {"center": Entry(model.center, ROW)}
    sides = {"q": model.student, "k": model.teacher}
    for side, network in sides.items():
        for name, entry in encoder_entries(network.encoder).items():
            found[f"encoder_{side}.{name}"] = entry
    for side, network in sides.items():
        found.update(_head(network.projector, f"projector_{side}.mlp", POINTWISE))
    for side, network in sides.items():
        prototypes = Entry(network.grouping.prototypes, TABLE)
        found[f"grouping_{side}.slot_embed.weight"] = prototypes
    found.update(_head(model.predictor, "predictor_slot.mlp", DENSE))
    return found


def _head(head, prefix, dense):
    found = {}
    for layer, index in _HEAD.items():
        found.update(_layer(getattr(head, layer), f"{prefix}.{index}", dense=dense))
    return found


def with_batches_tracked(
    entries: Mapping[str, Entry], batches: int
) -> dict[str, np.ndarray]:
    """Values by name, with torch's counters of batches, in torch's order.

    Args:
        entries: Of `encoder_entries` or `model_entries`.
        batches: Batches that the statistics have seen: two for every training step.

    Returns:
        Dict of name to NumPy array.

    Example:
        >>> from slotcon_tf import backbone
        >>> entries = encoder_entries(backbone("resnet10", width=8))
        >>> values = with_batches_tracked(entries, batches=200)
        >>> values["conv1.weight"].shape, values["bn1.num_batches_tracked"]
        ((8, 3, 7, 7), array(200))
    """
    found = {}
    for name, entry in entries.items():
        found[name] = entry.to_torch()
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + TRACKED
            found[counter] = np.asarray(batches, np.int64)
    return found
