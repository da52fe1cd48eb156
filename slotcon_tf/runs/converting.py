"""Turns weights of other libraries into a model's, and back."""

from __future__ import annotations

import dataclasses
import pathlib

import keras

from slotcon_tf.detection import MaskRCNN, save_detector
from slotcon_tf.files import written_whole
from slotcon_tf.images.statistics import IMAGENET, statistics_of
from slotcon_tf.interop import TARGETS, save_encoder, save_slotcon
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.load_settings import ModelSettings
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.runs.settings import SettingError, setting

_SOURCES = {
    "auto": None,
    "slotcon_torch": (".pth", ".pt", ".tar"),
    "torchvision": (".pth", ".pt"),
    "timm": (".pth", ".pt", ".bin", ".safetensors"),
    "safetensors": (".safetensors",),
    "detectron2": (".pth", ".pt"),
    "keras": (".keras",),
}
# Targets that take more than an encoder.
_WHOLE = {SlotCon: ("keras", "slotcon_torch"), MaskRCNN: ("keras", "detectron2")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig(ModelSettings):
    """What is converted, and into what; see `convert`.

    Example:
        >>> config = ConvertConfig(model="runs/photos", to="timm", output="photos.pth")
        >>> config.part
        'auto'
    """

    from_: str = setting("auto", "Who wrote the input.", choices=_SOURCES)
    to: str = setting("keras", "Who will read the output.", choices=TARGETS)
    output: str = setting(None, "File to write; for keras a .keras file or a folder.")
    part: str = setting(
        "auto",
        "The whole model (of SlotCon, or a detector), or an encoder; auto: the model "
        "where the target takes it, the teacher elsewhere.",
        choices=("auto", "model", "teacher", "student"),
    )
    output_stride: int | None = setting(
        None, "Of the encoder: 8, 16, 32; no file says."
    )
    allow_unmatched: bool = setting(False, "Pass over unmatched tensors.")


def convert(config: ConvertConfig) -> list[pathlib.Path]:
    """Converts, and prints how every tensor was matched.

    Args:
        config: What is converted, and into what.

    Returns:
        Paths of the files written.

    Raises:
        SettingError: If settings do not go together.
        ValueError, OSError: If the input cannot be read or the output written, or a
            tensor of either side is not matched.

    Example:
        >>> import pathlib, tempfile
        >>> import slotcon_tf
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> encoder = slotcon_tf.backbone("resnet10", width=4)
        >>> encoder.save(folder / "encoder.keras")
        >>> config = ConvertConfig(
        ...     model=folder / "encoder.keras", to="timm", output=folder / "timm.pth"
        ... )
        >>> [path.name for path in convert(config)]  # doctest: +ELLIPSIS
        Written: ...timm.pth
        ['timm.pth']
    """
    endings, path = _SOURCES[config.from_], pathlib.Path(config.model)
    if endings and path.is_file() and path.suffix not in endings:
        raise SettingError(
            f"`from_={config.from_}` reads {', '.join(endings)} files. "
            f"Received: {path}. Leave it out to go by the content."
        )
    model, report = load_trained(
        config.model,
        detectors=_takes_detectors(config),
        strict=False,
        output_stride=config.output_stride,
        which="student" if config.part == "student" else "teacher",
        prefix=config.prefix,
    )
    if report:
        print(report)
        if not config.allow_unmatched:
            report.check()
    _tell_statistics(model, config.to)
    paths = _written(model, config)
    for path in paths:
        print(f"Written: {path}")
    return paths


def _takes_detectors(config: ConvertConfig) -> bool:
    whole = config.part == "auto" and config.to in _WHOLE[MaskRCNN]
    return whole or config.part == "model"


def _written(model: keras.Model, config: ConvertConfig) -> list[pathlib.Path]:
    output, part = pathlib.Path(config.output), config.part
    if part == "auto":
        whole = config.to in _WHOLE.get(type(model), ())
        part = "model" if whole else "teacher"
    if part == "model":
        return _write_model(model, output, config.to)
    tracked = 0
    if isinstance(model, SlotCon):
        tracked = 2 * int(model.step.numpy())
        model = model.network(part).encoder
    return save_encoder(model, output, config.to, batches_tracked=tracked)


def _tell_statistics(model: keras.Model, target: str) -> None:
    """Says what images are normalised with, where files of others do not."""
    own = statistics_of(model)
    if own != IMAGENET and target in ("torchvision", "timm"):
        print(f"Not in the file: images have mean {own.mean} and deviation {own.std}.")


def _write_model(
    model: keras.Model, output: pathlib.Path, target: str
) -> list[pathlib.Path]:
    if not isinstance(model, SlotCon | MaskRCNN):
        raise ValueError(
            "part=model needs a whole SlotCon model or a detector. Received: an "
            "encoder alone."
        )
    if isinstance(model, SlotCon) and target == "slotcon_torch":
        return save_slotcon(model, output)
    if isinstance(model, MaskRCNN) and target == "detectron2":
        return save_detector(model, output)
    if target != "keras":
        raise SettingError(
            f"to={target} takes an encoder. Received: part=model. Set part=teacher, or "
            "part=student."
        )
    if output.suffix != ".keras" and isinstance(model, SlotCon):
        return [model.save_to_preset(output)]
    if output.suffix != ".keras":
        raise SettingError(
            f"`output` of a detector must be a .keras file. Received: output={output}."
        )
    with written_whole(output) as aside:
        model.save(aside)
    return [output]
