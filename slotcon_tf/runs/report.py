"""What the trainer tells at the start, and makes of the model at the end."""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.data.drawing import CATEGORIES
from slotcon_tf.data.scenes import scenes_arrays
from slotcon_tf.evaluation.groups import evaluate_groups, predict_groups
from slotcon_tf.files import write_text
from slotcon_tf.images import square
from slotcon_tf.visualize import save_slots

REPORTED = ("miou", "nmi", "ari", "pixel_accuracy", "majority_accuracy")
NUM_PICTURES = 6
HELD_OUT_SCENES = 100


def start_logging():
    """The run's own lines from INFO on; TensorFlow's, which go the same way, above."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(
        lambda r: r.levelname != "INFO" or "/tensorflow/" not in r.pathname
    )


def log_start(strategy, source, batch_size, steps_per_epoch, epochs, peak_lr, model):
    """Versions, devices, batch arithmetic and parameter counts."""
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


def log_first_batch(batch):
    """Shapes and ranges of one batch: a wrong normalisation shows here."""
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
    """How well slots match the true masks of held-out scenes, before and after.

    The scores before training are kept in the work directory, so that a resumed run
    still compares with the untrained network.

    Args:
        workdir: Of the run.
        data_dir: tensorflow-datasets' folder, or None.
        scale: Factor by which the scenes are enlarged for evaluation.
    """

    def __init__(self, workdir, data_dir, scale):
        self.path = pathlib.Path(workdir) / "scores.json"
        self.images, self.masks = scenes_arrays("test", data_dir, HELD_OUT_SCENES)
        self.scale = scale

    def measure(self, model):
        return evaluate_groups(
            model, self.images, self.masks, len(CATEGORIES), scale=self.scale
        )

    def before(self, model):
        if not self.path.exists():
            metrics, _ = self.measure(model)
            self._write({"before": self._numbers(metrics)})

    def after(self, model, picture):
        """Writes the picture; returns the table of scores as text."""
        metrics, groups = self.measure(model)
        scores = json.loads(self.path.read_text())
        scores["after"] = self._numbers(metrics)
        self._write(scores)
        shown = slice(0, NUM_PICTURES)
        save_slots(
            picture,
            self.images[shown],
            groups[shown],
            self.masks[shown],
            class_names=CATEGORIES,
            matching=metrics["matching"],
        )
        lines = [f"Slots against true masks, {len(self.images)} held-out scenes:"]
        lines.append(f"  {'':18}{'untrained':>10}{'trained':>10}")
        for name in REPORTED:
            row = (scores[when][name] for when in ("before", "after"))
            lines.append(f"  {name:18}" + "".join(f"{v:10.3f}" for v in row))
        return "\n".join(lines)

    @staticmethod
    def _numbers(metrics):
        return {name: round(metrics[name], 4) for name in REPORTED}

    def _write(self, scores):
        write_text(self.path, json.dumps(scores, indent=1) + "\n")


def sample_images(source, size, count=NUM_PICTURES):
    """Evenly spaced images of a source, cut to squares of one size.

    Returns:
        uint8 (count, size, size, 3), less where images cannot be used.
    """
    samples = source.sample(count)
    return np.stack([square(sample.image, size, "central") for sample in samples])


def draw_slots(model, images, path):
    """Writes a picture of the teacher's slots on images without masks."""
    save_slots(path, images, predict_groups(model, images))
