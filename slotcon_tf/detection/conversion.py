"""Whole detectors in detectron2's files, in and out."""

from __future__ import annotations

import os
import pathlib
import pickle
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from slotcon_tf.detection.kept_settings import read_settings, written_settings
from slotcon_tf.detection.kinds import (
    ANCHORS,
    BOTTOM,
    MASKS,
    check_anchors,
    check_kind,
)
from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.names import detector_entries
from slotcon_tf.encoders.resnet import ResNet
from slotcon_tf.extras import MissingExtra
from slotcon_tf.files import write_text, write_whole
from slotcon_tf.images.statistics import ImageStatistics
from slotcon_tf.interop.architectures import build_resnet, resnet_settings
from slotcon_tf.interop.detectron2_config import detector_texts
from slotcon_tf.interop.entries import Report, load_entries
from slotcon_tf.interop.image_statistics import read_statistics, written_statistics
from slotcon_tf.interop.loading import building
from slotcon_tf.interop.names import TRACKED, with_batches_tracked
from slotcon_tf.interop.pickles import CheckpointFileError
from slotcon_tf.interop.spellings import from_detectron2
from slotcon_tf.interop.torch_files import write_torch
from slotcon_tf.interop.weights import Weights, open_weights

# Of its categories in the order of their ids, which is that of detectron2's classes.
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,"
    "fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,"
    "bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,"
    "sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,"
    "bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,"
    "carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,"
    "tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NAMES = tuple(_COCO.split(","))
_AUTHOR, _NAMES = "slotcon_tf", "class_names"
_MARK = re.compile(r"((?:.*\.)?)proposal_generator\.rpn_head\.conv\.weight")
_PIXELS = ("pixel_mean", "pixel_std")  # buffers in files of earlier versions


def holds_detector(path: str | os.PathLike) -> bool:
    """Whether a file holds a detector under detectron2's names.

    Args:
        path: Of anything; what is no readable file of weights holds none.

    Example:
        >>> holds_detector("nowhere.pth")
        False
    """
    path = pathlib.Path(path)
    if not path.is_file() or path.suffix == ".keras":
        return False
    try:
        with open_weights(path) as weights:
            return _prefix(weights.tensors) is not None
    except (CheckpointFileError, MissingExtra):
        return False  # who reads it says why


def load_detector(
    path: str | os.PathLike,
    *,
    strict: bool = True,
    class_names: Sequence[str] | None = None,
) -> tuple[MaskRCNN, Report]:
    """A `MaskRCNN` with the weights of a detectron2 checkpoint of the same protocol.

    Sizes are read from the shapes: any ResNet of the family, any number of classes,
    with masks or without. Edges and counts of proposals, samples and detections are
    those that `save_detector` keeps; of others' files the protocol's.

    Args:
        path: Of a .pth file, as detectron2's checkpointer or `save_detector` writes
            it, or a .safetensors file with such names.
        strict: Whether a tensor that is not matched on either side is an error.
        class_names: In the order of their numbers. None: those that `save_detector`
            keeps; else COCO's where there are 80, and numbers where not.

    Returns:
        Tuple of the model and the `Report`.

    Raises:
        CheckpointFileError: If the file is damaged or hostile, or of a detector with
            other norms, heads or anchors; the first key that differs is named.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "class_names": ("cat", "dog")}
        >>> model = MaskRCNN(backbone("resnet10", width=8), **sizes)
        >>> _ = save_detector(model, "detector.pth")
        >>> again, report = load_detector("detector.pth")
        >>> again.class_names, report.missing
        (('cat', 'dog'), [])
    """
    with open_weights(path) as weights:
        prefix = _prefix(weights.tensors)
        if prefix is None:
            raise CheckpointFileError(
                f"{path} must hold a detector under detectron2's names. Received: "
                f"{len(weights.tensors)} tensors, and no proposal_generator.rpn_head."
            )
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.tensors.items()
            if name.startswith(prefix)
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        try:
            model = _built(weights, tensors, shapes, class_names)
            report = load_entries(detector_entries(model), tensors, _is_beside)
            check_anchors(tensors)
        except CheckpointFileError as error:
            raise CheckpointFileError(f"{path}: {error}") from error
        report.leave_out(weights.tensors, prefix)
        model.step.assign(_steps_done(tensors))
    if strict:
        report.check()
    return model, report


def save_detector(model: MaskRCNN, path: str | os.PathLike) -> list[pathlib.Path]:
    """Writes a detector as detectron2's checkpointer reads it, and its configuration.

    Names of the classes, settings that no tensor tells, and what images are normalised
    with where that is not ImageNet's stand under `args`, which detectron2 passes over.

    Args:
        model: A `MaskRCNN` around a `slotcon_tf.ResNet`.
        path: File to write: .pkl is detectron2's pickle, all else a file of torch.

    Returns:
        List of the paths that were written.

    Raises:
        ValueError: If detectron2 has no such network.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "class_names": ("cat", "dog")}
        >>> model = MaskRCNN(backbone("resnet10", width=8), **sizes)
        >>> save_detector(model, "detector.pth")
        [PosixPath('detector.pth'), PosixPath('detector.yaml')]
    """
    path = pathlib.Path(path)
    if not isinstance(model.encoder, ResNet):
        raise ValueError(
            "The encoder of a detector for detectron2 must be a slotcon_tf.ResNet. "
            f"Received: {model.encoder.name!r}, a {type(model.encoder).__name__}."
        )
    step = int(model.step.numpy())
    saved: dict[str, Any] = {
        "model": with_batches_tracked(detector_entries(model), step),
        "args": {
            _NAMES: list(model.class_names),
            **written_settings(model),
            **written_statistics(model.encoder),
        },
    }
    if path.suffix == ".pkl":
        saved["__author__"] = _AUTHOR
        write_whole(path, lambda file: pickle.dump(saved, file, protocol=4))
    else:
        write_torch(path, saved)
    paths = [path]
    for name, text in detector_texts(model.encoder, path, _sizes_of(model)).items():
        paths.append(path.with_name(name))
        write_text(paths[-1], text)
    return paths


def _sizes_of(model):
    return {**model.get_config(), "num_classes": model.num_classes}


def _prefix(names: Iterable[str]) -> str | None:
    """In front of the names of the detector in a file, or None where there is none."""
    found = (_MARK.fullmatch(name) for name in names)
    return next((match[1] for match in found if match), None)


def _built(weights: Weights, tensors, shapes, class_names) -> MaskRCNN:
    """The model of a file's sizes."""
    check_kind(shapes)
    bottom = {
        n.removeprefix(BOTTOM): s for n, s in shapes.items() if n.startswith(BOTTOM)
    }
    spelled = from_detectron2(list(bottom), lambda name: len(bottom[name]))
    settings = resnet_settings({name: bottom[old] for name, old in spelled.items()})
    count = _size("roi_heads.box_predictor.cls_score.weight", shapes) - 1
    names = class_names or _kept_names(weights, count)
    if len(names) != count or count < 1:
        raise CheckpointFileError(
            f"`class_names` must be as many as the classes of cls_score, {count}. "
            f"Received: {len(names)}."
        )
    with building(weights):
        encoder = build_resnet(settings)
        encoder.statistics = _statistics(weights, tensors)
        return MaskRCNN(
            encoder,
            class_names=names,
            channels=_size("backbone.fpn_lateral2.weight", shapes),
            units=_size("roi_heads.box_head.fc1.weight", shapes),
            masks=any(name.startswith(MASKS) for name in shapes),
            **read_settings(weights),
        )


def _size(key, shapes):
    if not shapes[key] or shapes[key][0] < 1:
        raise CheckpointFileError(
            f"{key} must have a row at least. Received: shape {shapes[key]}."
        )
    return shapes[key][0]


def _kept_names(weights: Weights, count: int) -> Sequence[str]:
    kept = weights.settings.get(_NAMES)
    texts = isinstance(kept, list) and all(isinstance(name, str) for name in kept)
    if isinstance(kept, list) and texts and len(kept) == count:
        return kept
    return COCO_NAMES if count == len(COCO_NAMES) else [str(i) for i in range(count)]


def _statistics(weights: Weights, tensors) -> ImageStatistics:
    """What the file says, or its buffers of grey levels; else ImageNet's."""
    own = read_statistics(weights)
    if own != ImageStatistics() or not {*_PIXELS} <= tensors.keys():
        return own
    # Rounded: what was written in float32 is 0.485 again.
    mean, std = (
        [round(float(x), 6) for x in np.ravel(tensors[name].numpy()) / 255.0]
        for name in _PIXELS
    )
    try:
        return ImageStatistics(tuple(mean), tuple(std))
    except ValueError as error:
        raise CheckpointFileError(f"pixel_mean and pixel_std: {error}") from error


def _is_beside(name):
    """What has no place in a model: counters, and constants that were checked."""
    return name in _PIXELS or name.startswith(ANCHORS)


def _steps_done(tensors) -> int:
    """Every step counts a batch of the backbone's normalisation."""
    counter = tensors.get(f"{BOTTOM}stem.conv1.norm.{TRACKED}")
    if counter is None or tuple(counter.shape) or counter.dtype is None:
        return 0
    count = int(counter.numpy()) if np.dtype(counter.dtype).kind in "iu" else -1
    if not 0 <= count < 2**48:
        raise CheckpointFileError(f"{TRACKED} must count batches. Received: {count}.")
    return count
