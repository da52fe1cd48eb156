"""Keras models' weights, written for torch and its toolboxes."""

from __future__ import annotations

import os
import pathlib
import pickle

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.extras import needed
from slotcon_tf.files import write_whole, written_whole
from slotcon_tf.interop.image_statistics import written_statistics
from slotcon_tf.interop.keras_backbones import as_resnet
from slotcon_tf.interop.names import (
    encoder_entries,
    model_entries,
    with_batches_tracked,
)
from slotcon_tf.interop.toolboxes import write_configurations
from slotcon_tf.interop.torch_files import write_torch
from slotcon_tf.method.slotcon import SlotCon

TARGETS = (
    *("torchvision", "timm", "detectron2", "mmsegmentation"),
    *("safetensors", "slotcon_torch", "keras"),
)
_AUTHOR = "slotcon_tf"


def save_encoder(
    encoder: ResNet, path: str | os.PathLike, target: str, *, batches_tracked: int = 0
) -> list[pathlib.Path]:
    """Writes an encoder's weights for another library.

    Args:
        encoder: A `slotcon_tf.ResNet`.
        path: File to write; the toolboxes' configurations get its name and their own
            endings.
        target: "torchvision", "timm" (their state dicts), "detectron2" (its pickle,
            with matching_heuristics), "mmsegmentation" (its state dict), "safetensors"
            (torchvision's names; timm reads it) or "keras". The last two keep what
            images are normalised with, the others have no place for it.
        batches_tracked: What torch's counters of batches are set to.

    Returns:
        List of the paths that were written.

    Raises:
        ValueError: If the target has no such network.

    Example:
        >>> from slotcon_tf import backbone
        >>> save_encoder(backbone("resnet18"), "resnet18.safetensors", "safetensors")
        [PosixPath('resnet18.safetensors')]
    """
    path = pathlib.Path(path)
    encoder = as_resnet(encoder)
    if target == "keras":
        with written_whole(path) as aside:
            encoder.save(aside)
        return [path]
    style = {
        "torchvision": "original",
        "safetensors": "timm",
    }.get(target, target)
    if target == "torchvision" and encoder.deep_stem:
        raise ValueError(
            "torchvision has no ResNet with a deep stem. "
            f"Received: {encoder.name!r}. Take timm or mmsegmentation."
        )
    values = with_batches_tracked(encoder_entries(encoder, style), batches_tracked)
    if target == "detectron2":
        saved = {"model": values, "__author__": _AUTHOR, "matching_heuristics": True}
        write_whole(path, lambda file: pickle.dump(saved, file, protocol=4))
    elif target == "mmsegmentation":
        write_torch(path, {"state_dict": values})
    elif target == "safetensors":
        about = {"format": "pt", "arch": encoder.name, **written_statistics(encoder)}
        with needed("interop"):
            from safetensors.numpy import save_file
        with written_whole(path) as aside:
            save_file(values, aside, about)
    elif target in ("torchvision", "timm"):
        write_torch(path, values)
    else:
        raise ValueError(f"target must be one of {TARGETS}. Received: {target!r}.")
    return [path, *write_configurations(encoder, path, target)]


def save_slotcon(model: SlotCon, path: str | os.PathLike) -> list[pathlib.Path]:
    """Writes a whole model as the original's checkpoint, without optimizer.

    Args:
        model: A `slotcon_tf.SlotCon` with a `slotcon_tf.ResNet`.
        path: File to write.

    Returns:
        List of the paths that were written.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> save_slotcon(model, "slotcon.pth")
        [PosixPath('slotcon.pth')]
    """
    step = int(model.step.numpy())
    values = with_batches_tracked(model_entries(model), 2 * step)
    settings = {
        "arch": model.encoder.name,
        "dim_hidden": model.hidden_dim,
        "dim_out": model.projection_dim,
        "num_prototypes": model.num_prototypes,
        "teacher_momentum": model.teacher_momentum,
        "center_momentum": model.center_momentum,
        "student_temp": model.student_temperature,
        "teacher_temp": model.teacher_temperature,
        "group_loss_weight": model.grouping_weight,
        # Images, epochs and batch such that the original counts the same steps.
        **{"num_instances": model.total_steps, "epochs": 1, "batch_size": 1},
        **written_statistics(model),
    }
    path = pathlib.Path(path)
    modules = {f"module.{name}": value for name, value in values.items()}
    write_torch(path, {"args": settings, "model": modules})
    return [path]
