"""Weights of others into Keras models, with a report of every tensor."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.interop.allowance import variables_within
from slotcon_tf.interop.architectures import (
    build_resnet,
    resnet_settings,
    slotcon_settings,
)
from slotcon_tf.interop.entries import (
    Report,
    is_beside_encoder,
    is_beside_model,
    load_entries,
)
from slotcon_tf.interop.image_statistics import read_statistics
from slotcon_tf.interop.names import TRACKED, encoder_entries, model_entries
from slotcon_tf.interop.networks import check_shapes, choose_network, side_rank
from slotcon_tf.interop.pickles import CheckpointFileError, one_line
from slotcon_tf.interop.weights import Weights, open_weights
from slotcon_tf.method.slotcon import SlotCon

__all__ = [
    "Report",
    "building",
    "encoder_tensors",
    "load_encoder",
    "load_slotcon",
    "read_encoder",
    "read_slotcon",
]

# What the original's `args` and `SlotCon` call the same.
_SETTINGS = {
    "teacher_momentum": "teacher_momentum",
    "center_momentum": "center_momentum",
    "student_temp": "student_temperature",
    "teacher_temp": "teacher_temperature",
    "group_loss_weight": "grouping_weight",
}


def load_encoder(
    path: str | os.PathLike,
    *,
    output_stride: int | None = None,
    which: str = "teacher",
    strict: bool = True,
    prefix: str | None = None,
) -> tuple[ResNet, Report]:
    """An encoder with the weights of a torch or safetensors file.

    The file is searched for a ResNet, under any prefix and in any dicts.

    Args:
        path: Of a file with a ResNet as torchvision, timm, detectron2, mmsegmentation,
            the original or an `nn.Sequential` of torchvision's children names it.
        output_stride: 32 unless the file says more; no shape tells it.
        which: "teacher" or "student": what is taken where the file has both. Momentum,
            target and averaged networks are teachers, online and query ones students.
        strict: Whether a tensor of the encoder that is not matched on either side is an
            error.
        prefix: Which network is taken where the file has several, such as "backbone"
            or "state_dict.encoder_q"; "." for names without one.

    Returns:
        Tuple of a `slotcon_tf.ResNet` and the `Report`.

    Raises:
        CheckpointFileError: If the file is damaged, hostile, or has no such ResNet, or
            several and nothing that says which.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> _ = save_encoder(backbone("resnet10", width=8), "resnet10.pth", "timm")
        >>> encoder, report = load_encoder("resnet10.pth", output_stride=16)
        >>> encoder.output_stride, len(report.missing)
        (16, 0)
    """
    with open_weights(path) as weights:
        encoder, report = read_encoder(
            weights, output_stride=output_stride, which=which, prefix=prefix
        )
    if strict:
        report.check()
    return encoder, report


def read_encoder(
    weights: Weights,
    *,
    output_stride: int | None = None,
    which: str = "teacher",
    prefix: str | None = None,
) -> tuple[ResNet, Report]:
    """As `load_encoder`, of open `Weights`, and unmatched tensors only reported.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> _ = save_encoder(backbone("resnet10", width=8), "resnet10.pth", "timm")
        >>> with open_weights("resnet10.pth") as weights:
        ...     encoder, report = read_encoder(weights)
        >>> report.missing
        []
    """
    chosen, others = choose_network(weights.tensors, which, prefix)
    stride = output_stride or _output_stride(weights)
    with building(weights):
        encoder = build_resnet(chosen.settings, stride)
    encoder.statistics = read_statistics(weights)
    report = load_entries(encoder_entries(encoder), chosen.tensors, is_beside_encoder)
    report.spell(chosen.spelled)
    report.leave_out(weights.tensors, chosen.prefix)
    if others:
        report.choice = (
            f"Taken: {chosen.shown}. Encoders too, and not taken: "
            f"{', '.join(other.shown for other in others)}. `prefix` chooses."
        )
    return encoder, report


def load_slotcon(
    path: str | os.PathLike,
    *,
    output_stride: int | None = None,
    strict: bool = True,
    **settings: Any,
) -> tuple[SlotCon, Report]:
    """A SlotCon model with the weights of the original's full checkpoint.

    Sizes are read from the shapes, the other settings from the checkpoint's `args`. The
    optimizer's state stays behind; `step` goes on.

    Args:
        path: Of the checkpoint.
        output_stride: 32 unless the file says more; no shape tells it.
        strict: Whether a tensor that is not matched on either side is an error.
        **settings: Arguments of `SlotCon` that replace the checkpoint's.

    Returns:
        Tuple of the model and the `Report`.

    Raises:
        CheckpointFileError: If the file is damaged, hostile, or no full checkpoint.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> from slotcon_tf.interop import save_slotcon
        >>> _ = save_slotcon(model, "slotcon.pth")
        >>> load_slotcon("slotcon.pth", teacher_temperature=0.04)[0].teacher_temperature
        0.04
    """
    with open_weights(path) as weights:
        if not weights.has_groups:
            raise CheckpointFileError(
                f"{path} must be a full checkpoint of SlotCon. Received: "
                f"{len(weights.tensors)} tensors without prototypes. Load it as an "
                "encoder."
            )
        model, report = read_slotcon(weights, output_stride=output_stride, **settings)
    if strict:
        report.check()
    return model, report


def read_slotcon(
    weights: Weights, *, output_stride: int | None = None, **settings: Any
) -> tuple[SlotCon, Report]:
    """As `load_slotcon`, of open `Weights`, and unmatched tensors only reported.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> from slotcon_tf.interop import save_slotcon
        >>> _ = save_slotcon(model, "slotcon.pth")
        >>> with open_weights("slotcon.pth") as weights:
        ...     loaded, report = read_slotcon(weights)
        >>> loaded.num_prototypes
        4
    """
    prefix = _method_prefix(weights)
    # Another whole model may stand inside of this one's names.
    inner = tuple(p for p in weights.method_prefixes if len(p) > len(prefix))
    tensors = _below(weights.tensors, prefix, but=inner)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    encoder = resnet_settings(_below(shapes, "encoder_k."))
    check_shapes(encoder, _below(tensors, "encoder_k."))
    sizes = slotcon_settings(shapes)
    step = _steps_done(tensors)
    stride = output_stride or _output_stride(weights)
    statistics = read_statistics(weights)
    with building(weights):
        encoder = build_resnet(encoder, stride)
        encoder.statistics = statistics
        model = SlotCon(
            encoder,
            **{
                "total_steps": _total_steps(weights.settings) or max(step, 1),
                **sizes,
                **_settings(weights.settings),
                **settings,
            },
        )
    report = load_entries(model_entries(model), tensors, is_beside_model)
    report.leave_out(weights.tensors, prefix, but=inner)
    model.step.assign(step)
    return model, report


def encoder_tensors(
    tensors: Mapping[str, Any], which: str = "teacher"
) -> dict[str, Any]:
    """The encoder's among the tensors of a file, in the original's names.

    Args:
        tensors: Dict of name to tensor, as `open_weights` gives them.
        which: "teacher" or "student", where there are both.

    Raises:
        CheckpointFileError: If they hold no ResNet, or several.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> _ = save_encoder(backbone("resnet10", width=8), "resnet10.pth", "timm")
        >>> with open_weights("resnet10.pth") as weights:
        ...     "conv1.weight" in encoder_tensors(weights.tensors)
        True
    """
    return choose_network(tensors, which)[0].tensors


@contextlib.contextmanager
def building(weights: Weights) -> Iterator[None]:
    """What stands around the making of a model of sizes that a file says.

    Args:
        weights: `Weights`, whose file bounds the model.

    Raises:
        CheckpointFileError: If the model cannot be built, or is too large for it.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> _ = save_encoder(backbone("resnet10", width=8), "resnet10.pth", "timm")
        >>> with open_weights("resnet10.pth") as weights, building(weights):
        ...     backbone("resnet10", width=8).width
        8
    """
    with variables_within(weights.path, weights.held, len(weights.tensors)):
        try:
            yield
        except CheckpointFileError:
            raise
        # Sizes that no layer takes: Keras and TensorFlow have many errors for them.
        except Exception as error:
            raise CheckpointFileError(
                f"{weights.path} must hold the weights of a network that can be built. "
                f"Received: {one_line(error)}."
            ) from error


def _method_prefix(weights):
    """Of several whole models the teacher's, an averaged one."""
    ranks = {p: side_rank(p, "teacher") for p in weights.method_prefixes}
    best = [prefix for prefix, rank in ranks.items() if rank == min(ranks.values())]
    if len(best) > 1:
        names = ", ".join(prefix.rstrip(".") or "." for prefix in best)
        raise CheckpointFileError(
            f"{weights.path} must hold one model of SlotCon. Received: one under each "
            f"of {names}. Take an encoder of one with prefix=."
        )
    return best[0]


def _below(mapping, prefix, but=()):
    return {
        name.removeprefix(prefix): value
        for name, value in mapping.items()
        if name.startswith(prefix) and not name.startswith(but)
    }


def _output_stride(weights):
    arch = weights.settings.get("arch")
    return 16 if isinstance(arch, str) and arch.endswith("_16s") else 32


def _settings(args):
    found = {}
    for theirs, ours in _SETTINGS.items():
        value = args.get(theirs)
        if not isinstance(value, int | float):
            continue
        if not 0 <= value < math.inf:
            raise CheckpointFileError(
                f"{theirs} of the checkpoint's args must be a finite number from 0. "
                f"Received: {str(value)[:40]}."
            )
        found[ours] = value
    return found


def _total_steps(args):
    """As the original counts the steps of its teacher's schedule."""
    numbers = [args.get(name) for name in ("num_instances", "batch_size", "epochs")]
    if not all(isinstance(n, int) and 0 < n < 2**48 for n in numbers):
        return None
    images, batch, epochs = numbers
    return int(images / batch * epochs)


def _steps_done(tensors):
    """Each step normalises two batches, and torch counts them."""
    name = f"encoder_k.bn1.{TRACKED}"
    counter = tensors.get(name)
    if counter is None or tuple(counter.shape) != ():
        return 0
    whole = counter.dtype is not None and np.dtype(counter.dtype).kind in "iu"
    count = int(counter.numpy()) if whole else -1
    if not 0 <= count < 2**48:
        raise CheckpointFileError(
            f"{name} must count batches. Received: {count if whole else counter.dtype}."
        )
    return count // 2
