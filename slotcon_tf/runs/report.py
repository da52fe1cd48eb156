"""What the trainer tells at the start, and makes of the model at the end."""

from __future__ import annotations

import contextlib
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.source import Source
from slotcon_tf.evaluation.bootstrap import RESAMPLES
from slotcon_tf.evaluation.groups import predict_groups
from slotcon_tf.evaluation.results import (
    SCORES,
    TRAINED,
    UNTRAINED,
    joined,
    read_result,
    result_of,
    show_result,
    write_result,
)
from slotcon_tf.images import square
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.labelled_monitor import PICTURES, LabelledMonitor
from slotcon_tf.visualize import save_slots
from slotcon_tf.visualize.figures import write_figure

REPORTED = ("miou", "nmi", "ari", "pixel_accuracy", "majority_accuracy")
HELD_OUT_SCENES = 100


def start_logging() -> None:
    """The run's own lines from INFO on; TensorFlow's, which go the same way, above.

    Example:
        >>> start_logging()
    """
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_own)  # the same one is added once


def _is_own(record):
    return record.levelname != "INFO" or "/tensorflow/" not in record.pathname


def log_start(
    strategy: tf.distribute.Strategy,
    source: Source,
    batch_size: int,
    steps_per_epoch: int,
    epochs: int,
    peak_lr: float,
    model: SlotCon,
) -> None:
    """Versions, devices, batch arithmetic and parameter counts.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.data import open_source
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=6, **sizes)
        >>> strategy, source = tf.distribute.get_strategy(), open_source("fake")
        >>> log_start(strategy, source, 8, 2, 3, 0.1, model)
    """
    replicas = strategy.num_replicas_in_sync
    devices = [d.name.replace("/physical_device:", "") for d in _devices()]
    logging.info("TensorFlow %s, Keras %s", tf.__version__, keras.__version__)
    logging.info(
        "Devices: %s; %s, %d replica(s)",
        ", ".join(devices),
        type(strategy).__name__,
        replicas,
    )
    logging.info(
        "%r; batch %d = %d x %d replica(s); %d // %d = %d steps per epoch, %d epochs, "
        "%d steps; peak learning rate %g",
        source,
        batch_size,
        batch_size // replicas,
        replicas,
        source.num_images,
        batch_size,
        steps_per_epoch,
        epochs,
        steps_per_epoch * epochs,
        peak_lr,
    )
    logging.info(
        "Parameters: encoder %s, projector %s, prototypes %s, predictor %s",
        *(
            f"{sum(int(np.prod(v.shape)) for v in part.trainable_variables):,}"
            for part in (
                model.encoder,
                model.student.projector,
                model.student.grouping,
                model.predictor,
            )
        ),
    )


def _devices():
    return tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices()


def log_first_batch(batch: dict[str, tf.Tensor]) -> None:
    """Shapes and ranges of one batch: a wrong normalisation shows here.

    Example:
        >>> log_first_batch({"view_a": tf.zeros((2, 32, 32, 3))})
    """
    for name, value in batch.items():
        if name.startswith("view"):
            logging.info(
                "First batch, %s: %s %s in [%.2f, %.2f]",
                name,
                tuple(value.shape),
                value.dtype.name,
                tf.reduce_min(value),
                tf.reduce_max(value),
            )


class SceneScores:
    """How well groups match the true masks of held-out scenes, before and after.

    The scores before training are kept in the work directory, so that a resumed run
    still compares with the untrained network.

    Args:
        model: A `SlotCon`; its present weights are measured.
        workdir: Of the run.
        data_dir: tensorflow-datasets' folder, or None.
        scale: Factor by which the scenes are enlarged for evaluation.

    Example:
        >>> scores = SceneScores(model, "run", None, scale=4.0)  # doctest: +SKIP
        >>> scores.before()  # doctest: +SKIP
        >>> scores.after("run/slots.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SlotCon,
        workdir: str | os.PathLike,
        data_dir: str | None,
        scale: float,
    ) -> None:
        self.path = pathlib.Path(workdir) / SCORES
        self._settings = {"which": "teacher", "scale": scale}
        self._model = model
        self._measures = False  # whether the newest ones are the trained network's
        self._monitor = LabelledMonitor(
            model,
            "groups",
            "scenes",
            data_dir,
            f"test[:{HELD_OUT_SCENES}]",
            None,
            num_images=None,
            crop_size=0,
            scale=scale,
            prefix="",
        )

    def before(self) -> None:
        """Measures the untrained network, unless that was done."""
        if not self.path.exists():
            write_result(self.path, self._measured(UNTRAINED))

    def after(self) -> pathlib.Path:
        """Measures the trained network, and writes the scores.

        Without scores of the untrained network, where their file is gone or damaged:
        its own only.

        Returns:
            Path of the file.
        """
        found = self._measured(TRAINED)
        with contextlib.suppress(OSError, ValueError):
            found = joined(read_result(self.path), found)
        write_result(self.path, found)
        return self.path

    def draw(self, picture: str | os.PathLike[str]) -> None:
        """Writes a picture of images, their masks and the groups."""
        if not self._measures:
            self._measured(TRAINED)  # for the colours of the groups
        write_figure(pathlib.Path(picture), self._monitor.figure())

    def show(self) -> None:
        """Prints the scores of the file."""
        found = read_result(self.path)
        shown = {name: found["rows"][name] for name in REPORTED}
        show_result({**found, "rows": shown, "classes": {}})

    def _measured(self, stage):
        counts = self._monitor.measure()
        self._measures = stage == TRAINED
        return result_of(
            "groups",
            self._monitor.task,
            {stage: counts},
            dataset=repr(self._monitor.data),
            split="test",
            settings=self._settings,
            step=int(self._model.step.numpy()),
            resamples=RESAMPLES,
        )


def sample_images(source: Source, size: int, count: int = PICTURES) -> np.ndarray:
    """Evenly spaced images of a source, cut to squares of one size.

    Returns:
        uint8 (count, size, size, 3), less where images cannot be used.

    Example:
        >>> from slotcon_tf.data import open_source
        >>> sample_images(open_source("fake"), 32, count=2).shape
        (2, 32, 32, 3)
    """
    samples = source.sample(count)
    return np.stack([square(sample.image, size, "central") for sample in samples])


def draw_slots(model: SlotCon, images: np.ndarray, path: str | os.PathLike) -> None:
    """Writes a picture of the teacher's groups on images without masks.

    Example:
        >>> import tempfile
        >>> from slotcon_tf import backbone
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "slots.png"
        >>> draw_slots(model, np.zeros((1, 64, 64, 3), np.uint8), path)
        >>> path.exists()
        True
    """
    save_slots(str(path), images, predict_groups(model, images))
