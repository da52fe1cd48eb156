"""Measures a trained model: `python -m trainers.evaluate --checkpoint=runs/small ...`

    python -m trainers.evaluate --checkpoint=runs/small --task=groups,linear \
        --dataset=folders --data_dir=camvid

Every score stands beside that of the same network untrained, with the difference, and
with 95% intervals of a bootstrap over images. A run's scores are also written to its
evaluation/TASK_DATASET_SPLIT_NETWORK.json, which trainers.visualize shows.

Tasks:
  groups          the winning slot of every pixel against label maps: mIoU and pixel
                  accuracy after one-to-one matching, and many to one, NMI, ARI
  linear          a 1x1 convolution on the frozen map, trained on --train_split
  retrieval       slots find slots of their class in --train_split
  knn             classes of whole images by the nearest images of --train_split
  classification  and by logistic regression
"""

import functools
import json
import pathlib
import re
import sys

import keras
from absl import app, flags
from rich.console import Console
from rich.table import Table

from slotcon_tf import SlotCon
from slotcon_tf.data.labelled import SEGMENTED, open_classified, open_segmented
from slotcon_tf.data.labelled.classified import CLASSIFIED
from slotcon_tf.evaluation import classification, tasks
from slotcon_tf.evaluation.bootstrap import LEVEL, RESAMPLES, compare
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.linear import LinearSettings
from slotcon_tf.files import write_text
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.method.twins import twin
from slotcon_tf.progress import bar
from slotcon_tf.runs.command_line import PREFIX, ModuleFlags, run_main
from slotcon_tf.runs.label_flags import define_label_flags, label_options
from slotcon_tf.runs.loading import load_trained, results_folder

FLAGS = flags.FLAGS
_MODULE = "trainers.evaluate"
TASKS = ("groups", "linear", "retrieval", "knn", "classification")
_LINEAR = LinearSettings()


def define_flags():
    """Defines the flags of this main, which importing it does not."""
    define = ModuleFlags(_MODULE)
    define.string(
        "checkpoint", None, "Run, its checkpoint, .keras or torch file, published name."
    )
    define.string(*PREFIX)
    define.listed("task", ["groups"], f"Any of {', '.join(TASKS)}.")
    define.string(
        "dataset",
        "folders",
        f"Label maps: {', '.join(SEGMENTED)}. Classes: {', '.join(CLASSIFIED)}.",
    )
    define.string("data_dir", None, "Folder of the labelled images.")
    define.string("split", "val", "What is measured.")
    define.string(
        "train_split", "train", "What probes learn from; '' for none (retrieval)."
    )
    define.choice("which", "teacher", ("teacher", "student"), "Network.")
    define.real("scale", 1.0, "Images are resized by this first.", 0.1)
    define.integer(
        "crop_size",
        None,
        "Shorter edge resized to this, and the central square cut; 0: whole images. "
        "Default: 320 for coco_stuff27, 224 for classes, 0 elsewhere.",
        0,
    )
    define_label_flags(define)
    define.string("image_list", None, "Text file of image names to keep, of --split.")
    define.integer("max_images", None, "Evenly spaced images of --split.")
    define.integer("max_train_images", None, "Evenly spaced images of --train_split.")
    define.integer("batch_size", 16, "Images at once.")
    define.integer("steps", _LINEAR.steps, "Of the linear probe.")
    define.real("learning_rate", _LINEAR.learning_rate, "Of the linear probe.")
    define.integer(
        "probe_batch_size", _LINEAR.batch_size, "Images per step of the probe."
    )
    define.integer(
        "label_stride", _LINEAR.label_stride, "Pixels between trained labels."
    )
    define.real("memory_gb", _LINEAR.memory_gb, "Maps that the probe keeps.")
    define.integer("neighbors", classification.NEIGHBORS, "Of knn.")
    define.boolean("baseline", True, "Measure the network untrained, too.")
    define.integer("resamples", RESAMPLES, "Of the bootstrap; 0: no intervals.", 0)
    define.integer("seed", 0, "Of the untrained weights, probes and resamples.", 0)
    define.string(
        "output", None, "JSON file, for one task; default: in a run's folder."
    )


def main(argv):
    if len(argv) > 1 or not FLAGS.checkpoint:
        raise app.UsageError("--checkpoint is needed, and no arguments.")
    try:
        evaluate()
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")


def evaluate():
    """Measures all of --task; prints and writes what comes of it."""
    unknown = set(FLAGS.task) - set(TASKS)
    if unknown or not FLAGS.task:
        raise ValueError(
            f"--task must be of {', '.join(TASKS)}. Received: {','.join(FLAGS.task)}."
        )
    if FLAGS.output and len(FLAGS.task) > 1:
        raise ValueError(
            f"--output is for one task. Received: {len(FLAGS.task)}. Leave it out, or "
            "call once for each."
        )
    model, _ = load_trained(FLAGS.checkpoint, prefix=FLAGS.prefix)
    pixel_range = statistics_of(model).pixel_range
    networks = {"trained": Inference(model, FLAGS.which, FLAGS.scale)}
    if FLAGS.baseline:
        blank = untrained(model, FLAGS.seed)
        networks = {"untrained": Inference(blank, FLAGS.which, FLAGS.scale), **networks}
    for name in FLAGS.task:
        data, task = open_task(name, networks["trained"], pixel_range)
        counts = {"untrained": None}
        for which, inference in networks.items():
            counts[which] = task.measure(inference)
        rows = compare(task.score, **counts, resamples=FLAGS.resamples, seed=FLAGS.seed)
        result = {
            "task": name,
            "dataset": f"{data!r}",
            "split": FLAGS.split,
            "rows": rows,
            "classes": class_rows(task, counts),
            "settings": settings(),
        }
        show(result)
        write(result)


def untrained(model, seed):
    """A model of the same architecture, with first weights drawn by a seed."""
    keras.utils.set_random_seed(seed)
    if isinstance(model, SlotCon):
        return SlotCon.from_config(model.get_config())
    return twin(model)


def open_task(name, inference, pixel_range):
    """The labelled set of --split, and the `Task` on it."""
    options = {"batch_size": FLAGS.batch_size, "progress": _progress}
    if name in ("knn", "classification"):
        train = _open_classified(pixel_range, FLAGS.train_split, FLAGS.max_train_images)
        data = _open_classified(pixel_range, FLAGS.split, FLAGS.max_images)
        fit = classification.linear_classifier
        if name == "knn":
            fit = functools.partial(
                classification.nearest_neighbours, neighbors=FLAGS.neighbors
            )
        return data, tasks.classification_task(fit, train, data, **options)
    data = _open_segmented(pixel_range, FLAGS.split, FLAGS.max_images, FLAGS.image_list)
    if name == "linear" and not FLAGS.train_split:
        raise ValueError("--task=linear learns from --train_split. Received: none.")
    if name == "groups":
        inference.need_groups()
        return data, tasks.groups_task(data, inference.num_prototypes, **options)
    train = None
    if FLAGS.train_split:
        train = _open_segmented(pixel_range, FLAGS.train_split, FLAGS.max_train_images)
    if name == "retrieval":
        inference.need_groups()
        return data, tasks.retrieval_task(train, data, **options)
    probe = LinearSettings(
        steps=FLAGS.steps,
        batch_size=FLAGS.probe_batch_size,
        learning_rate=FLAGS.learning_rate,
        label_stride=FLAGS.label_stride,
        memory_gb=FLAGS.memory_gb,
        seed=FLAGS.seed,
    )
    return data, tasks.linear_task(train, data, probe, **options)


@functools.cache  # of several tasks: label maps are looked through once
def _open_segmented(pixel_range, split, most, image_list=None):
    return open_segmented(
        FLAGS.dataset,
        FLAGS.data_dir,
        split,
        crop_size=FLAGS.crop_size,
        image_list=image_list,
        max_images=most,
        pixel_range=pixel_range,
        **label_options(FLAGS),
    )


def _open_classified(pixel_range, split, most):
    options = {} if FLAGS.crop_size is None else {"crop_size": FLAGS.crop_size}
    options["pixel_range"] = pixel_range
    return open_classified(
        FLAGS.dataset, FLAGS.data_dir, split, max_images=most, **options
    )


def _progress(items):
    return bar(items, desc="evaluate", leave=False)


def class_rows(task, counts):
    """Dict of class name to its score by network; NaN for classes that do not occur."""
    if task.class_scores is None:
        return {}
    found = {
        which: task.class_scores(sums.sum(axis=0))
        for which, sums in counts.items()
        if sums is not None
    }
    return {
        name: {which: float(scores[index]) for which, scores in found.items()}
        for index, name in enumerate(task.class_names)
    }


def settings():
    """Flags that a result depends on."""
    own = FLAGS.get_flags_for_module(_MODULE)
    return {f.name: f.value for f in own if f.name not in ("task", "output")}


def show(result):
    """Prints the tables of a task."""
    console = Console(width=100)
    console.print(f"{result['task']}: {result['dataset']}", highlight=False)
    kinds = list(next(iter(result["rows"].values())))
    table = Table(box=None, pad_edge=False)
    table.add_column("score")
    for kind in kinds:
        table.add_column(f"{kind} [{LEVEL:.0%}]".replace("[", r"\["), justify="right")
    for name, row in result["rows"].items():
        table.add_row(name, *(_interval(row[kind], kind) for kind in kinds))
    console.print(table)
    if result["classes"]:
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for kind in next(iter(result["classes"].values())):
            table.add_column(kind, justify="right")
        for name, row in result["classes"].items():
            table.add_row(name, *(f"{value:.3f}" for value in row.values()))
        console.print(table)


def _interval(values, kind):
    sign = "+" if kind == "difference" else ""
    value, low, high = (format(v, f"{sign}.3f") for v in values)
    return rf"{value} \[{low}, {high}]"


def write(result):
    """Writes a result as JSON, where --output or the run's folder says."""
    folder = results_folder(FLAGS.checkpoint)
    if FLAGS.output:
        path = pathlib.Path(FLAGS.output)
    elif folder:
        name = f"{result['task']}_{FLAGS.dataset}_{FLAGS.split}_{FLAGS.which}"
        path = folder / "evaluation" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.json"
    else:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON knows no NaN: `null` stands for it.
    text = json.dumps(_finite(result), indent=1, allow_nan=False)
    write_text(path, text + "\n")
    print(f"Written: {path}")


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    define_flags()
    run_main(main, _MODULE)
