"""detectron2's names of a detector's variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.network import BOX_BINS
from slotcon_tf.detection.pyramid import LEVELS
from slotcon_tf.interop.names import CONV, DENSE, VECTOR, Entry, encoder_entries


@dataclass(frozen=True)
class _Flattened:
    """A dense layer on a flattened map, which torch flattens channels first.

    Attributes:
        bins: Height and width of the map.
    """

    bins: int

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape[::-1])

    def to_torch(self, value: Any) -> np.ndarray:
        value = np.asarray(value)
        maps = value.reshape(self.bins, self.bins, -1, value.shape[-1])
        return np.ascontiguousarray(maps.transpose(3, 2, 0, 1)).reshape(
            value.shape[::-1]
        )

    def to_keras(self, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        maps = np.reshape(value, (shape[-1], -1, self.bins, self.bins))
        return maps.transpose(2, 3, 1, 0).reshape(shape)


def detector_entries(model: MaskRCNN) -> dict[str, Entry]:
    """detectron2's names of a detector's variables.

    Args:
        model: A `MaskRCNN` around a `slotcon_tf.ResNet`.

    Returns:
        Dict of name to `Entry`, without `num_batches_tracked`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16}
        >>> encoder = backbone("resnet10", width=8)
        >>> model = MaskRCNN(encoder, class_names=("cat", "dog"), **sizes)
        >>> detector_entries(model)["roi_heads.box_head.fc1.weight"].shape
        (16, 392)
    """
    found: dict[str, Entry] = {}
    for level in LEVELS:
        for part in ("lateral", "output"):
            name = f"{part}_{level.lower()}"
            convolution = getattr(model.pyramid, name)
            norm = getattr(model.pyramid, f"{name}_bn")
            found |= _convolution(f"backbone.fpn_{part}{level[1]}", convolution, norm)
    for name, entry in encoder_entries(model.encoder, "detectron2").items():
        found[f"backbone.bottom_up.{name}"] = entry
    rpn, head = "proposal_generator.rpn_head", model.proposal_head
    found |= _with_bias(f"{rpn}.conv", head.conv)
    found |= _with_bias(f"{rpn}.objectness_logits", head.logits)
    found |= _with_bias(f"{rpn}.anchor_deltas", head.deltas)
    roi, box = "roi_heads.box_head", model.box_head
    found |= _convolutions(f"{roi}.conv", box)
    found[f"{roi}.fc1.weight"] = Entry(box.dense.kernel, _Flattened(BOX_BINS))
    found[f"{roi}.fc1.bias"] = Entry(box.dense.bias, VECTOR)
    for name, layer in (("cls_score", box.logits), ("bbox_pred", box.deltas)):
        found |= _with_bias(f"roi_heads.box_predictor.{name}", layer, DENSE)
    if model.mask_head is not None:
        roi, mask = "roi_heads.mask_head", model.mask_head
        found |= _convolutions(f"{roi}.mask_fcn", mask)
        found |= _with_bias(f"{roi}.deconv", mask.upsample)
        found |= _with_bias(f"{roi}.predictor", mask.logits)
    return found


def _convolutions(name, head):
    found = {}
    for i in range(head.num_convs):
        layer, norm = getattr(head, f"conv{i}"), getattr(head, f"bn{i}")
        found |= _convolution(f"{name}{i + 1}", layer, norm)
    return found


def _convolution(name, layer, norm):
    return {
        f"{name}.weight": Entry(layer.kernel, CONV),
        f"{name}.norm.weight": Entry(norm.gamma, VECTOR),
        f"{name}.norm.bias": Entry(norm.beta, VECTOR),
        f"{name}.norm.running_mean": Entry(norm.moving_mean, VECTOR),
        f"{name}.norm.running_var": Entry(norm.moving_variance, VECTOR),
    }


def _with_bias(name, layer, layout=CONV):
    return {
        f"{name}.weight": Entry(layer.kernel, layout),
        f"{name}.bias": Entry(layer.bias, VECTOR),
    }
