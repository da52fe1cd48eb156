"""Pretrains SlotCon: `python -m trainers.pretrain --flagfile=coco.flags --data_dir=...`

Writes into the work directory: pretrain.flags (every flag; repeats the run),
checkpoints/, model.json (the model's configuration), history.csv, tensorboard/,
slots.png, export/1/ (a SavedModel of the teacher), slotcon.keras (the whole model),
skipped.txt (bad images, if any) and, on scenes, scores.json.

The exit status is 143 after SIGTERM or Ctrl-C, whose state is saved, and 1 after an
error.
"""

import functools
import pathlib

import keras
from absl import app, flags, logging

from slotcon_tf import LARS, SGD, SlotCon, WarmupCosine, backbone
from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.devices import best_precision
from slotcon_tf.images.statistics import parse_statistics
from slotcon_tf.runs import loop, report, workdir
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.command_line import run_main
from slotcon_tf.runs.initialization import initialize
from slotcon_tf.runs.label_flags import label_options
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.runs.loading import write_model_config
from slotcon_tf.runs.signals import run_to_the_end
from slotcon_tf.runs.strategy import (
    any_worker,
    build_strategy,
    check_same_everywhere,
    is_chief,
    spans_hosts,
)
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.training.callbacks import (
    Checkpointing,
    CollapseWarning,
    NanGuard,
    SlotPictures,
    Throughput,
)
from slotcon_tf.training.monitoring import CsvHistory, PeriodicEvaluation
from slotcon_tf.visualize import picture_of

from .pretrain_flags import MODULE, define_flags

FLAGS = flags.FLAGS
_OPTIMIZERS = {"lars": LARS, "sgd": SGD}
define_flags()


class UsageError(ValueError):
    """A flag cannot be used as given."""


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    report.start_logging()
    run_to_the_end(Run, "pretrain")


class Run:
    """One run: everything is checked and built here, before training starts."""

    def __init__(self):
        self.strategy = build_strategy(FLAGS.strategy, FLAGS.tpu)
        self.chief = is_chief(self.strategy)
        if FLAGS.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            FLAGS.precision = best_precision()
        keras.config.set_dtype_policy(FLAGS.precision)
        self.workdir = pathlib.Path(FLAGS.workdir)
        self.images = parse_statistics(FLAGS.mean, FLAGS.std, FLAGS.pixel_range)
        self.source = open_source(
            FLAGS.dataset,
            FLAGS.data_dir,
            allow_remote=FLAGS.allow_remote_paths,
            max_pixels=FLAGS.max_pixels,
            max_bad_share=FLAGS.max_bad_share,
            pixel_range=self.images["pixel_range"],
        )
        self.steps = self._steps_per_epoch()
        self.peak_lr = FLAGS.base_lr * FLAGS.batch_size / 256
        # Just before the weights are drawn: what came before may have used randomness.
        keras.utils.set_random_seed(FLAGS.seed)
        with self.strategy.scope():
            self.model = self._build_model()
        lines = workdir.flag_lines(FLAGS, MODULE)
        workdir.claim(self.workdir, lines, FLAGS.resume, self.chief)
        if self.chief:
            write_model_config(self.workdir, self.model)
            self.source.bad.write_to(self.workdir / "skipped.txt")
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            self.model,
            lines,
            steps_per_epoch=self.steps,
            keep=FLAGS.keep_checkpoints,
            keep_every_epochs=FLAGS.keep_every_epochs,
            writes=self.chief,
            means=not spans_hosts(self.strategy),
        )
        self.first_step = self.checkpoints.restore()
        resumed = self.first_step and self.images["pixel_range"] is None
        self.source.pixel_watch.resumed = bool(resumed)
        if FLAGS.init_from and not self.first_step:
            initialize(self.model, FLAGS.init_from, FLAGS.init_part, FLAGS.prefix)
        check_same_everywhere(self.strategy, "The step to go on from", self.first_step)
        self.monitor = self._open_monitor() if self.chief else None
        self.scores = None
        if FLAGS.dataset == "scenes" and self.chief:
            self.scores = report.SceneScores(
                self.workdir, FLAGS.data_dir, FLAGS.evaluation_scale
            )

    def _open_monitor(self):
        if not FLAGS.eval_every_epochs:
            return None
        return LabelledMonitor(
            self.model,
            FLAGS.eval_task,
            FLAGS.eval_dataset,
            FLAGS.eval_data_dir,
            FLAGS.eval_split,
            FLAGS.eval_train_split,
            num_images=FLAGS.eval_images,
            crop_size=FLAGS.eval_crop_size,
            labels=label_options(FLAGS, "eval_"),
        )

    def _steps_per_epoch(self):
        replicas = self.strategy.num_replicas_in_sync
        batch = FLAGS.batch_size
        parts = replicas * FLAGS.accumulate_steps
        if batch % parts:
            what = f"the {replicas} replicas"
            if FLAGS.accumulate_steps > 1:
                what += f" times the {FLAGS.accumulate_steps} --accumulate_steps"
            near = max(batch - batch % parts, parts)
            raise UsageError(
                f"batch_size is global and must divide by {what}. "
                f"Received: --batch_size={batch}. Use {near}."
            )
        if batch > self.source.num_images:
            raise UsageError(
                "batch_size must be no larger than the data set. Received: "
                f"--batch_size={batch} for {self.source!r}. "
                f"Use {self.source.num_images} or less."
            )
        steps = self.source.num_images // batch
        return min(steps, FLAGS.max_steps_per_epoch or steps)

    @property
    def fatal(self):
        """The error that ended the input pipeline, or None."""
        return self.source.bad.fatal

    def _build_model(self):
        total_steps = self.steps * FLAGS.epochs
        teacher_steps = total_steps
        if not FLAGS.max_steps_per_epoch:
            # Reference: the original counts the images that drop_last leaves out.
            images = self.source.num_images * FLAGS.epochs
            teacher_steps = images // FLAGS.batch_size
        model = SlotCon(
            backbone(FLAGS.arch, output_stride=FLAGS.output_stride),
            total_steps=teacher_steps,
            num_prototypes=FLAGS.num_prototypes,
            hidden_dim=FLAGS.hidden_dim,
            projection_dim=FLAGS.projection_dim,
            teacher_momentum=FLAGS.teacher_momentum,
            center_momentum=FLAGS.center_momentum,
            student_temperature=FLAGS.student_temperature,
            teacher_temperature=FLAGS.teacher_temperature,
            grouping_weight=FLAGS.grouping_weight,
            accumulate_steps=FLAGS.accumulate_steps,
            skip_nonfinite=FLAGS.max_skipped_steps > 0,
            remat=FLAGS.remat,
            **self.images,
        )
        schedule = WarmupCosine(
            peak=self.peak_lr,
            warmup_steps=int(FLAGS.warmup_epochs * self.steps),
            total_steps=total_steps,
        )
        optimizer = _OPTIMIZERS[FLAGS.optimizer](schedule, l2=FLAGS.weight_decay)
        jit = {"auto": "auto", "true": True, "false": False}[FLAGS.jit_compile]
        model.compile(optimizer=optimizer, jit_compile=jit)
        # Not `optimizer`: float16 wraps it into one that scales the loss.
        model.optimizer.build(model.trainable_variables)
        return model

    def _dataset(self, step, input_context=None):
        # The stream's epochs are whole; a cut epoch takes the first steps of each
        # stretch, so the stream position is what counts.
        return crop_pair_dataset(
            self.source,
            batch_size=FLAGS.batch_size,
            image_size=FLAGS.image_size,
            min_scale=FLAGS.min_scale,
            seed=FLAGS.seed,
            augment_on=FLAGS.augment_on,
            mean=self.images["mean"],
            std=self.images["std"],
            vertical_flip=bool(FLAGS.vertical_flip),
            rotate90=bool(FLAGS.rotate90),
            start_step=step,
            epochs=None,
            input_context=input_context,
        )

    def _distributed(self, step):
        """The stream from a step on, cut for the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return self._dataset(step)
        return self.strategy.distribute_datasets_from_function(
            lambda context: self._dataset(step, context).rebatch(
                context.get_per_replica_batch_size(FLAGS.batch_size),
                drop_remainder=True,
            )
        )

    def _callbacks(self, stop):
        latest = self.checkpoints.latest
        anyone = any_worker(self.strategy)
        checkpointing = Checkpointing(
            self.checkpoints.save if self.chief else latest,
            epochs=FLAGS.epochs,
            every_epochs=FLAGS.checkpoint_epochs,
            every_steps=FLAGS.checkpoint_steps,
            every_minutes=FLAGS.checkpoint_minutes,
            # A signal may reach one host only; all of them must stop at one step.
            stop_requested=lambda: anyone(stop()),
        )
        guard = NanGuard(latest, FLAGS.max_skipped_steps)
        if not self.chief:
            return [guard, checkpointing]
        history = self.workdir / "history.csv"
        workdir.trim_history(history, self.first_step // self.steps)
        board = str(self.workdir / "tensorboard")
        callbacks = [
            Throughput(FLAGS.batch_size),
            guard,
            CollapseWarning(board),
            *self._monitoring(board),
            CsvHistory(history),
            keras.callbacks.TensorBoard(board, write_graph=False),
        ]
        if FLAGS.picture_epochs:
            images = report.sample_images(self.source, 2 * FLAGS.image_size)
            draw = functools.partial(picture_of, self.model, images)
            when = {"every_epochs": FLAGS.picture_epochs, "epochs": FLAGS.epochs}
            callbacks.append(SlotPictures(board, draw, **when))
        return [*callbacks, checkpointing]

    def _monitoring(self, board):
        """Callbacks of the evaluation on the way, before those that write logs."""
        if not self.monitor:
            return []
        when = {"every_epochs": FLAGS.eval_every_epochs, "epochs": FLAGS.epochs}
        found = [PeriodicEvaluation(self.monitor, **when)]
        if FLAGS.eval_task == "groups":
            draw = self.monitor.picture
            found.append(SlotPictures(board, draw, name="labelled", **when))
        return found

    def train(self, stop):
        """Trains to the end, or until `stop()` asks for the end after a step."""
        report.log_start(
            self.strategy,
            self.source,
            FLAGS.batch_size,
            self.steps,
            FLAGS.epochs,
            self.peak_lr,
            self.model,
        )
        logging.info("Precision %s, XLA %s", FLAGS.precision, self.model.jit_compile)
        if self.scores:
            self.scores.before(self.model)
        if self.first_step >= FLAGS.epochs * self.steps:
            logging.info("All %d epochs are done already.", FLAGS.epochs)
            return
        if self.first_step:
            logging.info(
                "Resumed after step %d from %s",
                self.first_step,
                self.checkpoints.latest(),
            )
        loop.train(
            self.model,
            self._distributed,
            batch_size=FLAGS.batch_size,
            steps_per_epoch=self.steps,
            epochs=FLAGS.epochs,
            callbacks=self._callbacks(stop),
            look_at=report.log_first_batch,
            shows_progress=self.chief,
        )

    def finish(self):
        """The picture, the scores, and the models for others."""
        if not self.chief:
            return
        if self.source.bad.reasons:
            count, where = len(self.source.bad.reasons), self.workdir / "skipped.txt"
            print(f"{count} bad images were replaced: {where}")
        picture = self.workdir / "slots.png"
        if self.scores:
            print(self.scores.after(self.model, picture))
        else:
            images = report.sample_images(self.source, 2 * FLAGS.image_size)
            report.draw_slots(self.model, images, picture)
        print(f"Picture of the groups: {picture}")
        if FLAGS.export:
            self.model.save(self.workdir / "slotcon.keras")
            size = FLAGS.image_size
            options = ServingOptions(image_size=size, mask_size=size)
            folder = export_model(self.model, self.workdir / "export", options=options)
            print(f"For TF Serving: {folder}")


if __name__ == "__main__":
    run_main(main, "trainers.pretrain")
