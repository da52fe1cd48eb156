"""Writes a report of a trained model as one HTML file."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Any

import keras
import numpy as np

from slotcon_tf.data import open_source
from slotcon_tf.data.objects import has_objects
from slotcon_tf.data.source import ImageSource, spaced
from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.pictures import SHOWN_SCORE
from slotcon_tf.files import write_text
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.progress import bar
from slotcon_tf.runs.detector_report import DetectionDrawer, ObjectSource
from slotcon_tf.runs.load_settings import ModelSettings, scale_setting, which_setting
from slotcon_tf.runs.loading import (
    load_trained,
    measured_part,
    results_folder,
    run_folder,
)
from slotcon_tf.runs.places import HISTORY
from slotcon_tf.runs.settings import SettingError, check_left_out, setting
from slotcon_tf.runs.source_settings import SourceSettings
from slotcon_tf.runs.workdir import FLAGFILES
from slotcon_tf.visualize.charts import read_history
from slotcon_tf.visualize.maps import ImageMaps, map_reader
from slotcon_tf.visualize.overlays import fit_edge
from slotcon_tf.visualize.prototypes import PrototypeAtlas
from slotcon_tf.visualize.report import Report
from slotcon_tf.visualize.scores import read_scores
from slotcon_tf.visualize.sections import page_edge

_PAGE = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualizeConfig(SourceSettings, ModelSettings):
    """What is shown, and of what; see `visualize`.

    Example:
        >>> VisualizeConfig(model="runs/photos", data_dir="photos").num_images
        12
    """

    split: str | None = setting(
        None, "Of a detector's images with objects. Default: val."
    )
    which: str = which_setting()
    num_images: int = setting(12, "Images with groups and features.", low=1)
    prototype_images: int = setting(
        200, "Images among which each prototype's nearest are sought.", low=1
    )
    max_prototypes: int = setting(64, "Prototypes shown, most used first.", low=1)
    scale: float = scale_setting()
    max_edge: int = setting(640, "Larger images are shrunk to this edge first.", low=32)
    output: str | None = setting(
        None, "HTML file to write; default: report.html in the run's folder, or here."
    )
    pictures: str | None = setting(None, "Folder for every picture as a PNG file.")


def visualize(config: VisualizeConfig) -> pathlib.Path:
    """Writes the report: scores, curves, groups over images, features, prototypes.

    Of a detector: what it finds, beside the truth where the images have objects
    (dataset "scenes", "coco" or "tfds:NAME"; `split` says which), in place of groups
    and prototypes.

    Args:
        config: What is shown.

    Returns:
        Path of the HTML file.

    Raises:
        SettingError: If `output` is a folder, or `split` is of no use.
        ValueError, OSError: If the model or all images cannot be read.

    Example:
        >>> import tempfile
        >>> from slotcon_tf import backbone
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> backbone("resnet10", width=4).save(folder / "encoder.keras")
        >>> config = VisualizeConfig(
        ...     model=folder / "encoder.keras", dataset="fake", num_images=1,
        ...     output=folder / "report.html",
        ... )
        >>> visualize(config).name  # doctest: +ELLIPSIS
        Written: .../report.html (... MB)
        'report.html'
    """
    checkpoint = pathlib.Path(config.model)
    folder = results_folder(checkpoint)
    output = pathlib.Path(config.output or (folder or pathlib.Path()) / _PAGE)
    if output.is_dir():
        raise SettingError(
            f"`output` must be a file to write. Received: {output}, a folder. Take "
            f"{output / _PAGE}."
        )
    for place in filter(None, (output.parent, config.pictures)):
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)  # fails now, or never
    model, _ = load_trained(config.model, detectors=True, prefix=config.prefix)
    source = _source(model, config)
    shown, atlas, detected = _look(model, source, config)
    report = Report(
        name=checkpoint.resolve().name if folder else checkpoint.name,
        facts=_facts(model, source, config, len(atlas) if atlas else len(shown)),
        shown=shown,
        atlas=atlas,
        skipped=source.bad.reasons if isinstance(source, ImageSource) else {},
        max_prototypes=config.max_prototypes,
        detected=detected,
        min_score=SHOWN_SCORE,
    )
    run = run_folder(checkpoint)
    if folder and run:
        _add_records(report, folder, run)
    pictures = pathlib.Path(config.pictures) if config.pictures else None
    write_text(output, report.html(pictures))
    print(f"Written: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return output


def _source(model: keras.Model, config: VisualizeConfig) -> ImageSource | ObjectSource:
    if isinstance(model, MaskRCNN) and has_objects(config.dataset):
        place = config.dataset, config.data_dir, config.split or "val"
        return ObjectSource.of_detector(model, *place)
    check_left_out(config, ["split"], "but for a detector and images with objects")
    return open_source(
        config.dataset,
        config.data_dir,
        allow_remote=config.allow_remote_paths,
        max_pixels=config.max_pixels,
        max_bad_share=1.0,  # a report of what is left is better than none
        pixel_range=statistics_of(model).pixel_range,
    )


def _look(
    model: keras.Model, source: ImageSource | ObjectSource, config: VisualizeConfig
) -> tuple[list[tuple[str, np.ndarray, ImageMaps]], PrototypeAtlas | None, list[Any]]:
    """Reads the images and what the model makes of them.

    Args:
        model: A `SlotCon`, a `MaskRCNN` or an encoder.
        source: Of the images.
        config: How many are read, and how.

    Returns:
        Tuple of the shown images, a list of (name, image, `ImageMaps`), and a
        `PrototypeAtlas` of all, or None where the model has no groups, and a list of
        `Detected` of the shown images, empty where it is no detector.

    Raises:
        ValueError: If no image can be used.
    """
    reader = map_reader(measured_part(model), config.which, config.scale)
    atlas, count = None, config.num_images
    if isinstance(model, SlotCon):
        atlas = PrototypeAtlas(model.num_prototypes)
        count = max(count, config.prototype_images)
    count = min(count, source.num_images)
    wanted = spaced(config.num_images, count)
    shown, detected, images = [], [], source.sample(count)
    draw = None
    if isinstance(model, MaskRCNN):
        draw = DetectionDrawer(model, page_edge(len(wanted)))
    images = bar(images, total=count, unit="image", desc="visualize", leave=False)
    for sample in images:
        image = fit_edge(sample.image, config.max_edge)
        due = len(shown) < len(wanted) and sample.place >= wanted[len(shown)]
        if atlas is None and not due:
            continue
        maps = reader(image)
        if atlas is not None:
            atlas.add(sample.name, image, maps)
        if due:
            shown.append((sample.name, image, maps))
            if draw is not None:
                detected.append(draw(sample))
    if not shown:
        raise ValueError(
            f"One image at least must be readable. Received: {count} of {source.name}, "
            "all bad. Check `data_dir` (slotcon-check-data says what is wrong)."
        )
    return shown, atlas, detected


def _facts(
    model: keras.Model,
    source: ImageSource | ObjectSource,
    config: VisualizeConfig,
    num_images: int,
) -> dict[str, str]:
    facts = {"made on": datetime.date.today().isoformat()}
    if isinstance(model, SlotCon):
        network = model.network(config.which)
        facts |= {
            "encoder": network.encoder.name,
            "network": config.which,
            "prototypes (K)": f"{model.num_prototypes:,}",
            "projection (D)": f"{model.projection_dim:,}",
            "steps trained": f"{int(model.step.numpy()):,}",
        }
    elif isinstance(model, MaskRCNN):
        facts |= {
            "encoder": model.encoder.name,
            "classes": f"{model.num_classes:,}",
            "finds": "boxes and masks" if model.masks else "boxes",
            "steps trained": f"{int(model.step.numpy()):,}",
        }
    else:
        facts |= {"encoder": model.name, "channels": f"{model.output_shape[-1]:,}"}
    facts["images looked at"] = f"{num_images:,} of {source.num_images:,}"
    facts["images from"] = source.name
    if config.scale != 1.0:
        facts["scale"] = f"{config.scale:g}"
    return facts


def _add_records(report: Report, folder: pathlib.Path, run: pathlib.Path) -> None:
    """Scores of a folder of results, and what the run's holds beside its model."""
    report.tables, report.troubles = read_scores(folder)
    flagfiles = (run / name for name in FLAGFILES)
    if flagfile := next(filter(pathlib.Path.is_file, flagfiles), None):
        lines = flagfile.read_text(errors="replace").splitlines()
        report.flags = "\n".join(x for x in lines if not x.startswith("#"))
    if (run / HISTORY).is_file():
        report.history = read_history(run / HISTORY)
