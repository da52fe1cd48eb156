"""Configurations of detectron2 and mmsegmentation, written beside the weights."""

from __future__ import annotations

import pathlib

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.files import write_text
from slotcon_tf.interop import detectron2_config, mmsegmentation_config

TOOLBOXES = {
    "detectron2": detectron2_config.texts,
    "mmsegmentation": mmsegmentation_config.texts,
}


def write_configurations(
    encoder: ResNet, weights: pathlib.Path, target: str
) -> list[pathlib.Path]:
    """Writes the protocols' configurations beside the weights.

    Args:
        encoder: The `slotcon_tf.ResNet` of the weights.
        weights: pathlib.Path of the weights; the configurations begin with its stem.
        target: "detectron2" or "mmsegmentation"; others have none.

    Returns:
        List of the paths that were written.

    Example:
        >>> from slotcon_tf import backbone
        >>> encoder = backbone("resnet10", width=8)
        >>> write_configurations(encoder, pathlib.Path("slotcon.pkl"), "detectron2")
        [PosixPath('slotcon_coco_1x.yaml')]
    """
    paths = []
    texts = TOOLBOXES.get(target, lambda *_: {})(encoder, weights)
    for name, text in texts.items():
        paths.append(weights.with_name(name))
        write_text(paths[-1], text)
    return paths
