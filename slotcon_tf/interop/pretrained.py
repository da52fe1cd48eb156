"""Pretrained models by name, directory or file, and directories of them."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import keras

from slotcon_tf.files import write_text, written_whole
from slotcon_tf.interop.entries import Report
from slotcon_tf.interop.keras_files import load_keras
from slotcon_tf.interop.loading import read_encoder, read_slotcon
from slotcon_tf.interop.weights import open_weights
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.presets import FOLDER, PUBLISHED, PUBLISHED_AT

MODEL_FILE = "slotcon.keras"
_ABOUT_FILE = "preset.json"
_ENDINGS = (".keras", ".pth", ".pt", ".safetensors", "")


def _find_pretrained(source: str | os.PathLike) -> pathlib.Path:
    """The file of a source of `load_pretrained`."""
    path = pathlib.Path(source)
    if str(source) in PUBLISHED and not path.exists():
        folder = pathlib.Path(os.environ.get(*FOLDER)).expanduser()
        found = [folder / f"{source}{ending}" for ending in _ENDINGS]
        found = [path for path in found if path.exists()]
        if not found:
            published = PUBLISHED[str(source)]
            raise FileNotFoundError(
                f"{source} is not in {folder}, and nothing is fetched by itself. "
                f"The authors publish it at {published.url} (all of them: "
                f"{PUBLISHED_AT}). Save it as {folder / source}.pth, set "
                f"{FOLDER[0]} to where it is, or give its path."
            )
        path = found[0]
    if path.is_dir():
        path = path / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"No pretrained model: {source}. Give a .keras, .pth or .safetensors file, "
            f"a directory with {MODEL_FILE} (save_to_preset or a finished run writes "
            f"it), or one of {', '.join(PUBLISHED)}."
        )
    return path


def load_pretrained(
    source: str | os.PathLike,
    *,
    strict: bool = True,
    output_stride: int | None = None,
    which: str = "teacher",
    prefix: str | None = None,
) -> tuple[keras.Model, Report | None]:
    """A SlotCon model, or an encoder where the file has no more.

    Args:
        source: Name in `slotcon_tf.presets.PUBLISHED`; a directory of `save_to_preset`
            or a finished run's; a .keras, .pth or .safetensors file.
        strict: Whether a tensor of a torch file that is not matched on either side is
            an error.
        output_stride: Of the encoder of a torch file; no shape tells it.
        which, prefix: As for `load_encoder`, of a torch file of others. With a prefix
            an encoder is taken from a SlotCon checkpoint too.

    Returns:
        Tuple of the model, a `SlotCon` or a Keras model of an encoder, and the
        `Report`, which is None for a .keras file.

    Raises:
        FileNotFoundError: If there is no such file; of a name in `PUBLISHED` it says
            where the authors publish theirs.
        CheckpointFileError: If it is damaged, hostile, or something else.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> _ = save_encoder(backbone("resnet10", width=8), "resnet10.pth", "timm")
        >>> encoder, report = load_pretrained("resnet10.pth")
        >>> encoder.width, report.missing
        (8, [])
    """
    path = _find_pretrained(source)
    if path.suffix == ".keras":
        if prefix:
            raise ValueError(
                "`prefix` is for files of torch and safetensors. "
                f"Received: {prefix}, with {path}. Leave it out."
            )
        return load_keras(path), None
    with open_weights(path) as weights:
        if weights.has_groups and not prefix:
            model, report = read_slotcon(weights, output_stride=output_stride)
        else:
            model, report = read_encoder(
                weights, output_stride=output_stride, which=which, prefix=prefix
            )
    if strict:
        report.check()
    return model, report


def from_preset(source: str | os.PathLike, **settings: Any) -> SlotCon:
    """See `SlotCon.from_preset`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> _ = save_to_preset(model, "preset")
        >>> from_preset("preset").projection_dim
        4
    """
    model, _ = load_pretrained(source)
    if not isinstance(model, SlotCon):
        raise ValueError(
            "A preset must be a whole SlotCon model. "
            f"Received: {source}, an encoder alone. Load it with "
            "slotcon_tf.interop.load_encoder, and give it to SlotCon(encoder)."
        )
    if not settings:
        return model
    other = SlotCon.from_config({**model.get_config(), **settings})
    copy_weights(model, other)
    if "total_steps" not in settings:
        other.step.assign(model.step.numpy())
    return other


def copy_weights(source: SlotCon, target: SlotCon) -> None:
    """Copies student, teacher, predictor and center, not the step.

    Raises:
        ValueError: If the models differ in size; it names the first difference.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> other = SlotCon(backbone("resnet10", width=8), total_steps=9, **sizes)
        >>> copy_weights(model, other)
        >>> bool((other.teacher.weights[0] == model.teacher.weights[0]).numpy().all())
        True
    """
    parts = [
        (old, new)
        for part in ("student", "teacher", "predictor")
        for old, new in zip(
            getattr(source, part).variables,
            getattr(target, part).variables,
            strict=False,
        )
    ]
    parts.append((source.center, target.center))
    for old, new in parts:
        if old.shape != new.shape:
            raise ValueError(
                f"The models must have the same sizes. Received: {new.path} of shape "
                f"{tuple(new.shape)}, and {tuple(old.shape)} in the pretrained one."
            )
    for old, new in parts:
        new.assign(old.numpy())


def save_to_preset(model: SlotCon, directory: str | os.PathLike) -> pathlib.Path:
    """See `SlotCon.save_to_preset`.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> save_to_preset(model, "preset")
        PosixPath('preset/slotcon.keras')
    """
    directory = pathlib.Path(directory)
    with written_whole(directory / MODEL_FILE) as aside:
        model.save(aside)
    about = {
        "class": "slotcon_tf.SlotCon",
        "arch": model.encoder.name,
        "num_prototypes": model.num_prototypes,
        "projection_dim": model.projection_dim,
        "step": int(model.step.numpy()),
        "images": "RGB of 0 to 255, normalised with this mean and deviation times 255",
        "mean": list(model.mean),
        "std": list(model.std),
        "pixel_range": model.pixel_range,
        "paper": "arXiv 2205.15288",
    }
    write_text(directory / _ABOUT_FILE, json.dumps(about, indent=2) + "\n")
    return directory / MODEL_FILE
