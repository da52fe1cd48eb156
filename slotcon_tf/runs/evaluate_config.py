"""EvaluateConfig: what is measured of a trained model, on what, and how."""

from __future__ import annotations

import dataclasses

from slotcon_tf.data.labelled import SEGMENTED
from slotcon_tf.data.labelled.classified import CLASSIFIED
from slotcon_tf.data.objects import OBJECT_SETS
from slotcon_tf.evaluation import classification
from slotcon_tf.evaluation.bootstrap import RESAMPLES
from slotcon_tf.evaluation.linear import LinearSettings
from slotcon_tf.runs.label_settings import LabelSettings
from slotcon_tf.runs.load_settings import ModelSettings, scale_setting, which_setting
from slotcon_tf.runs.settings import setting

DETECTION = "detection"
DETECTOR_SETTINGS = ("short_edge", "long_edge")
TASKS = ("groups", "linear", "retrieval", "knn", "classification", DETECTION)
_LINEAR = LinearSettings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelSettings, ModelSettings):
    """What is measured, on what, and how; see `slotcon_tf.runs.evaluate`.

    Example:
        >>> EvaluateConfig(model="runs/photos", data_dir="camvid").task
        ('groups',)
    """

    task: tuple[str, ...] = setting(
        ("groups",), "What is measured, with commas.", choices=TASKS
    )
    dataset: str = setting(
        "folders",
        f"Label maps: {', '.join(SEGMENTED)}. Classes: {', '.join(CLASSIFIED)}. "
        f"Objects: {', '.join(OBJECT_SETS)}.",
    )
    data_dir: str | None = setting(None, "Folder of the labelled images.")
    split: str = setting("val", "What is measured.")
    train_split: str = setting(
        "train", "What probes learn from; '' for none (retrieval)."
    )
    which: str = which_setting()
    scale: float = scale_setting()
    crop_size: int | None = setting(
        None,
        "Edge of the square that is cut of an image, whose shorter edge is resized to "
        "it first; 0: whole images. Default: 320 for coco_stuff27, 224 for classes, 0 "
        "elsewhere.",
        low=0,
    )
    image_list: str | None = setting(
        None, "Text file of image names to keep, of the measured split."
    )
    max_images: int | None = setting(
        None, "Evenly spaced images of the measured split.", low=1
    )
    max_train_images: int | None = setting(
        None, "Evenly spaced images of train_split.", low=1
    )
    short_edge: int | None = setting(
        None,
        "Of a detector: pixels that the shortest edge of an image becomes. Default: as "
        "it was trained.",
        low=32,
    )
    long_edge: int | None = setting(
        None, "Of a detector: pixels that the longest edge becomes at most.", low=32
    )
    batch_size: int = setting(16, "Images at once.", low=1)
    steps: int = setting(_LINEAR.steps, "Training steps, of the linear probe.", low=1)
    learning_rate: float = setting(
        _LINEAR.learning_rate, "Of the linear probe.", low=0.0
    )
    probe_batch_size: int = setting(
        _LINEAR.batch_size, "Images per step of the probe.", low=1
    )
    label_stride: int = setting(
        _LINEAR.label_stride, "Pixels between trained labels.", low=1
    )
    memory_gb: float = setting(_LINEAR.memory_gb, "Maps that the probe keeps.", low=0.0)
    neighbors: int = setting(classification.NEIGHBORS, "Of knn.", low=1)
    baseline: bool = setting(True, "Measure the network untrained, too.")
    resamples: int = setting(RESAMPLES, "Of the bootstrap; 0: no intervals.", low=0)
    seed: int = setting(0, "Of the untrained weights, probes and resamples.", low=0)
    output: str | None = setting(
        None,
        "JSON file to write, for one task, or with all the folder of tables and "
        "curves; default: in a run's folder.",
    )
    all: bool = setting(
        False,
        "Measure every checkpoint of the run: one table and one curve per task, which "
        "the same command goes on with.",
    )
