"""Pretrains SlotCon: `python -m trainers.pretrain --flagfile=coco.flags --data_dir=...`

Writes into the work directory: pretrain.flags (every flag; repeats the run),
checkpoints/, history.csv, tensorboard/, slots.png, export/1/ (a SavedModel of the
teacher's encoder), slotcon.keras (the whole model), skipped.txt (bad images, if any)
and, on scenes, scores.json.
"""

import pathlib
import sys

import keras
import tensorflow as tf
from absl import app, flags, logging

from export.saved_model import export_encoder
from slotcon_tf import LARS, SGD, SlotCon, WarmupCosine, backbone
from slotcon_tf.callbacks import (
    EpochCheckpoint,
    NanGuard,
    NonFiniteError,
    SlotPictures,
    Throughput,
)
from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.decoding import MAX_PIXELS
from slotcon_tf.data.pipeline import AUGMENT_ON
from slotcon_tf.devices import best_precision
from slotcon_tf.visualize import picture_of
from trainers import report, workdir
from trainers.strategy import STRATEGIES, build_strategy

FLAGS = flags.FLAGS
_MODULE = "trainers.pretrain"
_OPTIMIZERS = {"lars": LARS, "sgd": SGD}
_PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def _define_flags():
    text, number, real = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    own = {"module_name": _MODULE}

    def string(name, default, help_text):
        text(name, default, help_text, **own)

    def integer(name, default, help_text, low=1):
        number(name, default, help_text, lower_bound=low, **own)

    def float_(name, default, help_text, low=0.0, high=None):
        real(name, default, help_text, lower_bound=low, upper_bound=high, **own)

    def choice(name, default, values, help_text):
        flags.DEFINE_enum(name, default, values, help_text, **own)

    string("workdir", "runs/pretrain", "Folder that everything is written to.")
    string(
        "dataset",
        "folder",
        "folder, coco, coco_plus, imagenet, list, records, tfds:NAME, scenes or fake.",
    )
    string("data_dir", None, "Folder of the images, or the list file.")
    integer("image_size", 224, "Edge of the views in pixels.")
    float_("min_scale", 0.08, "Smallest area of a crop, share of the image.", high=1.0)
    choice("augment_on", "host", AUGMENT_ON, "Where colours are changed.")
    integer("max_pixels", MAX_PIXELS, "Larger images are skipped.")
    float_("max_bad_share", 0.1, "Stop when more of the images are bad.", high=1.0)
    string("arch", "resnet50", "Backbone; see slotcon_tf.BACKBONES.")
    integer("output_stride", 32, "Of the backbone: 8, 16 or 32.")
    integer("num_prototypes", 256, "K, the number of groups.")
    integer("hidden_dim", 4096, "Width of the heads' hidden layers.")
    integer("projection_dim", 256, "D, width of slots.")
    float_("teacher_momentum", 0.99, "At step 0; rises to 1.", high=1.0)
    float_("center_momentum", 0.9, "Share of the old center kept.", high=1.0)
    float_("student_temperature", 0.1, "Of the student's assignments.")
    float_("teacher_temperature", 0.07, "Of the teacher's assignments.")
    float_("grouping_weight", 0.5, "Share of the grouping loss.", high=1.0)
    integer("batch_size", 512, "Images per step over all replicas.")
    integer("epochs", 800, "Passes over the data.")
    integer("max_steps_per_epoch", 0, "Cut epochs to this many steps; 0: whole.", 0)
    choice("optimizer", "lars", list(_OPTIMIZERS), "Optimizer.")
    float_("base_lr", 1.0, "Learning rate at batch 256; scaled with the batch.")
    float_("weight_decay", 1e-5, "Coupled into the gradient.")
    float_("warmup_epochs", 5.0, "Length of the linear warm-up.")
    integer("seed", 0, "Of weights and data.", 0)
    choice("precision", "auto", _PRECISIONS, "Of the networks; auto: the faster here.")
    choice("strategy", "auto", STRATEGIES, "How replicas are placed.")
    string("tpu", "", "TPU name or address.")
    choice("jit_compile", "auto", ("auto", "true", "false"), "XLA.")
    choice("resume", "auto", ("auto", "never"), "Continue what workdir holds.")
    integer("checkpoint_epochs", 1, "Epochs between checkpoints.")
    integer("keep_checkpoints", 3, "Checkpoints kept.")
    integer("picture_epochs", 0, "Epochs between TensorBoard pictures; 0: none.", 0)
    float_("evaluation_scale", 1.0, "Scenes are enlarged by this for evaluation.", 0.1)
    flags.DEFINE_bool("export", True, "Write a SavedModel at the end.", **own)


_define_flags()


class UsageError(ValueError):
    """A flag cannot be used as given."""


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        run = Run()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"pretrain: {error}")
    try:
        run.train()
        run.finish()
    except (NonFiniteError, TooManyBadImages) as error:
        sys.exit(f"pretrain: {error}")
    except tf.errors.OpError:
        # What stops the input pipeline arrives here as an error of TensorFlow.
        if run.source.bad.fatal:
            sys.exit(f"pretrain: {run.source.bad.fatal}")
        raise


class Run:
    """One run: everything is checked and built here, before training starts."""

    def __init__(self):
        if FLAGS.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            FLAGS.precision = best_precision()
        keras.config.set_dtype_policy(FLAGS.precision)
        self.workdir = pathlib.Path(FLAGS.workdir)
        self.strategy = build_strategy(FLAGS.strategy, FLAGS.tpu)
        self.source = open_source(
            FLAGS.dataset,
            FLAGS.data_dir,
            max_pixels=FLAGS.max_pixels,
            max_bad_share=FLAGS.max_bad_share,
        )
        self.steps = self._steps_per_epoch()
        self.peak_lr = FLAGS.base_lr * FLAGS.batch_size / 256
        # Just before the weights are drawn: what came before may have used randomness.
        keras.utils.set_random_seed(FLAGS.seed)
        with self.strategy.scope():
            self.model = self._build_model()
        lines = workdir.flag_lines(FLAGS, _MODULE)
        workdir.claim(self.workdir, lines, FLAGS.resume)
        self.source.bad.write_to(self.workdir / "skipped.txt")
        self.manager = workdir.checkpoint_manager(
            self.workdir, self.model, self.model.optimizer, FLAGS.keep_checkpoints
        )
        self.epochs_done = workdir.restore(self.manager)
        self.scores = None
        if FLAGS.dataset == "scenes":
            self.scores = report.SceneScores(
                self.workdir, FLAGS.data_dir, FLAGS.evaluation_scale
            )

    def _steps_per_epoch(self):
        replicas = self.strategy.num_replicas_in_sync
        batch = FLAGS.batch_size
        if batch % replicas:
            raise UsageError(
                f"batch_size is global and must divide by the {replicas} replicas. "
                f"Received: --batch_size={batch}. Use {batch - batch % replicas}."
            )
        if batch > self.source.num_images:
            raise UsageError(
                "batch_size must be no larger than the data set. Received: "
                f"--batch_size={batch} for {self.source!r}. "
                f"Use {self.source.num_images} or less."
            )
        steps = self.source.num_images // batch
        return min(steps, FLAGS.max_steps_per_epoch or steps)

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
        )
        schedule = WarmupCosine(
            peak=self.peak_lr,
            warmup_steps=int(FLAGS.warmup_epochs * self.steps),
            total_steps=total_steps,
        )
        optimizer = _OPTIMIZERS[FLAGS.optimizer](schedule, l2=FLAGS.weight_decay)
        jit = {"auto": "auto", "true": True, "false": False}[FLAGS.jit_compile]
        model.compile(optimizer=optimizer, jit_compile=jit)
        optimizer.build(model.trainable_variables)
        return model

    def _dataset(self, input_context=None):
        # The stream's epochs are whole; a cut epoch takes the first steps of each
        # stretch, so the stream position is what counts.
        return crop_pair_dataset(
            self.source,
            batch_size=FLAGS.batch_size,
            image_size=FLAGS.image_size,
            min_scale=FLAGS.min_scale,
            seed=FLAGS.seed,
            augment_on=FLAGS.augment_on,
            start_step=self.epochs_done * self.steps,
            input_context=input_context,
        )

    def _callbacks(self):
        history = self.workdir / "history.csv"
        workdir.trim_history(history, self.epochs_done)
        board = str(self.workdir / "tensorboard")
        callbacks = [
            Throughput(FLAGS.batch_size),
            NanGuard(lambda: self.manager.latest_checkpoint),
            keras.callbacks.CSVLogger(history, append=self.epochs_done > 0),
            keras.callbacks.TensorBoard(board, write_graph=False),
        ]
        if FLAGS.picture_epochs:
            images = report.sample_images(self.source, 2 * FLAGS.image_size)
            callbacks.append(
                SlotPictures(
                    board, images, picture_of, every_epochs=FLAGS.picture_epochs
                )
            )
        checkpoint = EpochCheckpoint(
            self.manager, every_epochs=FLAGS.checkpoint_epochs, epochs=FLAGS.epochs
        )
        return [*callbacks, checkpoint]

    def train(self):
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
        if self.epochs_done >= FLAGS.epochs:
            logging.info("All %d epochs are done already.", FLAGS.epochs)
            return
        if self.epochs_done:
            logging.info("Resumed %s", self.manager.latest_checkpoint)
        dataset = self._dataset()
        report.log_first_batch(dataset)
        if self.strategy.num_replicas_in_sync > 1:
            dataset = self.strategy.distribute_datasets_from_function(
                lambda context: self._dataset(context).rebatch(
                    context.get_per_replica_batch_size(FLAGS.batch_size),
                    drop_remainder=True,
                )
            )
        self.model.fit(
            dataset,
            epochs=FLAGS.epochs,
            initial_epoch=self.epochs_done,
            steps_per_epoch=self.steps,
            callbacks=self._callbacks(),
            verbose=1 if sys.stdout.isatty() else 2,
            shuffle=False,
        )

    def finish(self):
        """The picture, the scores, and the models for others."""
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
            encoder = self.model.feature_extractor()
            print(f"Encoder: {export_encoder(encoder, self.workdir / 'export')}")


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    app.run(main)
