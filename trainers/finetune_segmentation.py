"""Fine-tunes an encoder for segmentation: the paper's FCN protocols.

    python -m trainers.finetune_segmentation --flagfile=voc_fcn.flags \
        --init_from=runs/coco --data_dir=/data/VOCdevkit/VOC2012

Writes into the work directory: finetune.flags (every flag; repeats the run),
checkpoints/, history.csv, tensorboard/, scores.json (of --val_split, newest
evaluation), segmenter.keras (loads after `import slotcon_tf.segmentation`) and
masks.png.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, and 1 after an
error.
"""

import json
import math
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from slotcon_tf import SGD, backbone
from slotcon_tf.devices import best_precision
from slotcon_tf.files import write_text
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.runs import finetune_settings as settings
from slotcon_tf.runs import loop, report, workdir
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.command_line import run_main
from slotcon_tf.runs.signals import run_to_the_end
from slotcon_tf.segmentation import (
    HEADS,
    OUTPUT_STRIDES,
    Augmentation,
    Predictor,
    Segmenter,
    crop_dataset,
    dilated,
    evaluate,
    save_masks,
)
from slotcon_tf.training.callbacks import (
    Checkpointing,
    NanGuard,
    Throughput,
)
from slotcon_tf.training.monitoring import CsvHistory, PeriodicEvaluation
from slotcon_tf.training.schedules import Poly, Steps

from .finetune_flags import MODULE, define_flags

FLAGS = flags.FLAGS
_SCHEDULES = {"poly": Poly, "steps": Steps}
REPORTED = ("miou", "pixel_accuracy", "mean_accuracy")
_ADVICE = "with a lower --base_lr, or with --precision=float32"


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    report.start_logging()
    run_to_the_end(Run, "finetune_segmentation")


class Run:
    """One run: everything is checked and built here, before training starts."""

    def __init__(self):
        self.strategy = settings.strategy()
        if FLAGS.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            FLAGS.precision = best_precision()
        keras.config.set_dtype_policy(FLAGS.precision)
        self.workdir = pathlib.Path(FLAGS.workdir)
        self.scale = settings.scale()
        self.every = settings.steps_between_evaluations()
        settings.check_batch(self.strategy.num_replicas_in_sync)
        pretrained = settings.pretrained() if FLAGS.init_from else None
        pixel_range = statistics_of(pretrained).pixel_range
        self.train_images, self.val_images = settings.open_images(pixel_range)
        # Just before the weights are drawn: what came before may have used randomness.
        keras.utils.set_random_seed(FLAGS.seed)
        with self.strategy.scope():
            self.model = self._build_model(pretrained)
        self.predict = Predictor(
            self.model,
            scale=self.scale,
            window=FLAGS.crop_size if FLAGS.sliding_stride else 0,
            stride=FLAGS.sliding_stride,
        )
        lines = workdir.flag_lines(FLAGS, MODULE)
        kind = {"flagfile": workdir.FINETUNE_FLAGFILE}
        workdir.claim(self.workdir, lines, FLAGS.resume, module=MODULE, **kind)
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            self.model,
            lines,
            steps_per_epoch=self.every,
            keep=FLAGS.keep_checkpoints,
            **kind,
        )
        self.first_step = self.checkpoints.restore()

    @property
    def fatal(self):
        """The error that ended the input pipeline, or None."""
        return self.train_images.error

    def _build_model(self, pretrained):
        encoder = pretrained or backbone(FLAGS.arch)
        model = Segmenter(
            dilated(encoder, OUTPUT_STRIDES[FLAGS.head]),
            class_names=self.val_images.class_names,
            seed=FLAGS.seed,
            name="segmenter",
            **HEADS[FLAGS.head],
        )
        schedule = _SCHEDULES[FLAGS.schedule](
            peak=FLAGS.base_lr, total_steps=FLAGS.steps
        )
        jit = {"auto": "auto", "true": True, "false": False}[FLAGS.jit_compile]
        model.compile(optimizer=SGD(schedule, l2=FLAGS.weight_decay), jit_compile=jit)
        model.optimizer.build(model.trainable_variables)
        return model

    def _dataset(self, step):
        augment = Augmentation(
            scale=self.scale,
            crop_size=FLAGS.crop_size,
            ratios=(FLAGS.min_ratio, FLAGS.max_ratio),
            cat_max_ratio=FLAGS.cat_max_ratio,
            distort=FLAGS.distort,
        )
        return crop_dataset(
            self.train_images,
            augment,
            batch_size=FLAGS.batch_size,
            seed=FLAGS.seed,
            start_step=step,
            statistics=self.model.statistics,
        )

    def _distributed(self, step):
        """The stream from a step on, cut for the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return self._dataset(step)
        return self.strategy.distribute_datasets_from_function(
            lambda context: self._dataset(step).rebatch(
                context.get_per_replica_batch_size(FLAGS.batch_size),
                drop_remainder=True,
            )
        )

    def _callbacks(self, stop):
        history = self.workdir / "history.csv"
        workdir.trim_history(history, self.first_step // self.every)
        board = str(self.workdir / "tensorboard")
        return [
            Throughput(FLAGS.batch_size),
            NanGuard(self.checkpoints.latest, advice=_ADVICE),
            PeriodicEvaluation(self._measure, every_epochs=1, epochs=FLAGS.steps),
            CsvHistory(history),
            keras.callbacks.TensorBoard(board, write_graph=False),
            Checkpointing(
                self.checkpoints.save,
                epochs=FLAGS.steps // self.every,
                every_steps=FLAGS.checkpoint_steps,
                every_minutes=FLAGS.checkpoint_minutes,
                stop_requested=stop,
            ),
        ]

    def _measure(self):
        """Scores of --val_split, which are also written to scores.json."""
        scores = evaluate(self.predict, self.val_images)
        names = self.val_images.class_names
        iou = [None if math.isnan(v) else round(v, 4) for v in scores["class_iou"]]
        content = {
            "step": int(self.model.step.numpy()),
            "split": FLAGS.val_split,
            "images": self.val_images.num_images,
            **{name: round(scores[name], 4) for name in REPORTED},
            "classes": dict(zip(names, iou, strict=True)),
        }
        path = self.workdir / "scores.json"
        write_text(path, json.dumps(content, indent=1) + "\n")
        return {name: scores[name] for name in REPORTED}

    def _log_start(self):
        replicas, batch = self.strategy.num_replicas_in_sync, FLAGS.batch_size
        logging.info("TensorFlow %s, Keras %s", tf.__version__, keras.__version__)
        logging.info(
            "%s, %d replica(s); precision %s, XLA %s",
            type(self.strategy).__name__,
            replicas,
            FLAGS.precision,
            self.model.jit_compile,
        )
        logging.info(
            "%r; batch %d = %d x %d replica(s); %d steps = %.1f passes, measured every "
            "%d steps on %r; learning rate %g, %s",
            self.train_images.images,
            batch,
            batch // replicas,
            replicas,
            FLAGS.steps,
            FLAGS.steps * batch / self.train_images.num_images,
            self.every,
            self.val_images,
            FLAGS.base_lr,
            FLAGS.schedule,
        )
        encoder, whole = self.model.encoder, self.model
        counts = [
            sum(int(np.prod(v.shape)) for v in part.trainable_variables)
            for part in (encoder, whole)
        ]
        logging.info(
            "Encoder %s of output stride %d, as %s: %s parameters of %s",
            encoder.name,
            encoder.output_stride,
            FLAGS.init_from or "random weights",
            *(f"{count:,}" for count in counts),
        )

    def train(self, stop):
        """Trains to the end, or until `stop()` asks for the end after a step."""
        self._log_start()
        if self.first_step >= FLAGS.steps:
            logging.info("All %d steps are done already.", FLAGS.steps)
            return
        if self.first_step:
            latest = self.checkpoints.latest()
            logging.info("Resumed after step %d from %s", self.first_step, latest)
        loop.train(
            self.model,
            self._distributed,
            batch_size=FLAGS.batch_size,
            steps_per_epoch=self.every,
            epochs=FLAGS.steps // self.every,
            callbacks=self._callbacks(stop),
        )

    def finish(self):
        """The scores, the picture, and the model for others."""
        path = self.workdir / "scores.json"
        if not path.exists() or json.loads(path.read_text())["step"] != FLAGS.steps:
            self._measure()
        scores = json.loads(path.read_text())
        for name, value in scores["classes"].items():
            print(f"  {name:24}" + ("     -" if value is None else f"{value:6.3f}"))
        print("; ".join(f"{name} {scores[name]:.3f}" for name in REPORTED))
        self.model.save(self.workdir / "segmenter.keras")
        if FLAGS.num_pictures:
            shown = list(self.val_images.sample(FLAGS.num_pictures))
            images, truths = [s.image for s in shown], [s.labels for s in shown]
            predicted = [self.predict(image) for image in images]
            picture = self.workdir / "masks.png"
            save_masks(picture, images, truths, predicted, self.val_images.class_names)
            print(f"Picture of the masks: {picture}")


if __name__ == "__main__":
    define_flags()
    run_main(main, MODULE)
