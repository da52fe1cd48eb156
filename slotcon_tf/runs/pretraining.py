"""A pretraining: from its settings to a trained model and what it is for."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.identity import Identity
from slotcon_tf.data.source import ImageSource
from slotcon_tf.encoders.resnet import backbone
from slotcon_tf.evaluation.results import SCORES
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs import report
from slotcon_tf.runs.initialization import initialize
from slotcon_tf.runs.label_settings import label_options
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.runs.loading import serving_options
from slotcon_tf.runs.model_config import write_model_config
from slotcon_tf.runs.plan_steps import bytes_of, seconds_of
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.products import Products
from slotcon_tf.runs.provenance import provenance
from slotcon_tf.runs.run import Run
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.archive import export_model
from slotcon_tf.training.callbacks import CollapseWarning, NanGuard, SlotPictures
from slotcon_tf.training.monitoring import PeriodicEvaluation, val_logs
from slotcon_tf.training.optimizers import LARS, SGD
from slotcon_tf.training.schedules import WarmupCosine
from slotcon_tf.visualize import picture_of

_OPTIMIZERS = {"lars": LARS, "sgd": SGD}


def pretrain(
    config: PretrainConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> PretrainRun:
    """Pretrains SlotCon, or goes on with what the work directory holds.

    Writes into the work directory: pretrain.flags (every setting; repeats the run),
    checkpoints/, model.json (the model's configuration), history.csv, tensorboard/,
    slots.png, export/1/ (a SavedModel of the teacher), slotcon.keras (the whole
    model), finished.json (what was made after the last step), skipped.txt (bad images,
    if any) and, on scenes, scores.json. Called again for a finished run it writes
    nothing, or what is missing.

    Args:
        config: What is trained on what, and how long. With `dry_run` a plan is
            printed and nothing is written; `slotcon_tf.runs.plan` returns it.
        callbacks: Keras callbacks of the training, such as loggers, beside those that
            `config.callbacks` names.

    Returns:
        The run: `model`, the trained `SlotCon`; `workdir`, a pathlib.Path.

    Raises:
        SettingError, ValueError, OSError: If a setting or an image set cannot be used.
        WorkdirError: If the work directory is another run's, or of other data.
        HostError: If hosts of the run are missing, differ, or one of them has ended.
        RunStopped: If training broke off, by a signal too; the same call goes on.
        RunUnfinished: If training is done and saved, and slotcon.keras or the export
            could not be written; the same call writes them.

    Example:
        >>> import tempfile
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=1,
        ...     max_steps_per_epoch=1, num_prototypes=4, hidden_dim=8, projection_dim=8,
        ...     warmup_epochs=0, precision="float32", export=False,
        ...     workdir=tempfile.mkdtemp(),
        ... )
        >>> run = pretrain(config)  # doctest: +ELLIPSIS
        Picture of the groups: ...slots.png
        >>> int(run.model.step)
        1
        >>> sorted(path.name for path in run.workdir.glob("*.*"))
        ['finished.json', 'history.csv', 'model.json', 'pretrain.flags', 'slots.png']

        On photographs: `PretrainConfig.from_recipe("small", data_dir="photos")`.
    """
    report.start_logging()
    with PretrainRun.begun(config, callbacks) as run:
        return run.to_the_end()


class PretrainRun(Run):
    """One pretraining; see `pretrain`.

    Args:
        config: `PretrainConfig`.
        callbacks: As `pretrain` takes them.
        hosts: As `meet_hosts` returns them; None: this one is alone.

    Example:
        >>> config = PretrainConfig(dataset="fake", batch_size=2048)
        >>> PretrainRun(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: `batch_size` must be no larger ...
    """

    config: PretrainConfig
    look_at = staticmethod(report.log_first_batch)

    def open_images(self) -> None:
        config = self.config
        self.source = open_source(
            config.dataset,
            config.data_dir,
            allow_remote=config.allow_remote_paths,
            max_pixels=config.max_pixels,
            max_bad_share=config.max_bad_share,
            pixel_range=config.statistics["pixel_range"],
        )
        replicas = self.strategy.num_replicas_in_sync
        what = f"the {replicas} replicas"
        if config.accumulate_steps > 1:
            what += f" times the {config.accumulate_steps} `accumulate_steps`"
        config.check_batch(replicas * config.accumulate_steps, what)
        if config.batch_size > self.source.num_images:
            raise SettingError(
                "`batch_size` must be no larger than the data set. Received: "
                f"batch_size={config.batch_size} for {self.source!r}. "
                f"Use {self.source.num_images} or less."
            )

    def identify(self) -> Identity:
        return Identity(images=self.source.identity())

    @property
    def images(self) -> ImageSource:
        return self.source

    @property
    def steps_per_epoch(self) -> int:
        return self.config.steps_per_epoch(self.source.num_images)

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def checkpoint_epochs(self) -> int:
        return self.config.checkpoint_epochs

    @property
    def fatal(self) -> BaseException | None:
        return self.source.bad.fatal

    def build_model(self) -> SlotCon:
        config, steps = self.config, self.steps_per_epoch
        teacher_steps = total_steps = steps * config.epochs
        if not config.max_steps_per_epoch:
            # Reference: the original counts the images that drop_last leaves out.
            images = self.source.num_images * config.epochs
            teacher_steps = images // config.batch_size
        model = SlotCon(
            backbone(config.arch, output_stride=config.output_stride),
            total_steps=teacher_steps,
            **config.model_settings(),
        )
        schedule = WarmupCosine(
            peak=config.peak_lr,
            warmup_steps=int(config.warmup_epochs * steps),
            total_steps=total_steps,
        )
        optimizer = _OPTIMIZERS[config.optimizer](schedule, l2=config.weight_decay)
        model.compile(optimizer=optimizer, jit_compile=config.jit)
        return model

    def prepare(self) -> None:
        config = self.config
        unknown_range = config.statistics["pixel_range"] is None
        self.source.pixel_watch.resumed = bool(self.first_step and unknown_range)
        if config.init_from and not self.first_step:
            initialize(self.model, config.init_from, config.init_part, config.prefix)
        self.monitor = self.scores = None
        if not self.chief:
            return
        if config.eval_every_epochs:
            self.monitor = LabelledMonitor(
                self.model,
                config.eval_task,
                config.eval_dataset,
                config.eval_data_dir,
                config.eval_split,
                config.eval_train_split,
                num_images=config.eval_images,
                crop_size=config.eval_crop_size,
                labels=label_options(config, "eval_"),
            )
        if config.dataset == "scenes":
            self.scores = report.SceneScores(
                self.model, self.workdir, config.data_dir, config.evaluation_scale
            )

    def begin(self) -> None:
        if self.chief:
            if not self.checkpoints.ended:  # it was made for the steps of then
                write_model_config(self.workdir, self.model)
            self.source.bad.write_to(self.workdir / "skipped.txt")
        if self.scores and not self.first_step:
            with self.troubles.of("the evaluation before training"):
                self.scores.before()

    def dataset(
        self, step: int, context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        # The stream's epochs are whole; a cut epoch takes the first steps of each
        # stretch, so the stream position is what counts.
        config = self.config
        return crop_pair_dataset(
            self.source,
            batch_size=config.batch_size,
            image_size=config.image_size,
            min_scale=config.min_scale,
            seed=config.seed,
            augment_on=config.augment_on,
            mean=config.statistics["mean"],
            std=config.statistics["std"],
            vertical_flip=config.vertical_flip,
            rotate90=config.rotate90,
            start_step=step,
            epochs=None,
            input_context=context,
        )

    def guard(self) -> NanGuard:
        return NanGuard(self.checkpoints.latest, self.config.max_skipped_steps)

    def monitors(self, board: str) -> dict[str, keras.callbacks.Callback]:
        found: dict[str, keras.callbacks.Callback] = {
            "the look for a collapse": CollapseWarning(board)
        }
        if self.monitor:
            config = self.config
            when = {"every_epochs": config.eval_every_epochs, "epochs": self.epochs}
            found["evaluation"] = PeriodicEvaluation(self.monitor, **when)
            if config.eval_task == "groups":
                draw = self.monitor.picture
                name = "the picture of the evaluation"
                found[name] = SlotPictures(board, draw, name="labelled", **when)
        return found

    @property
    def evaluation_epochs(self) -> int:
        return self.config.eval_every_epochs or 1

    def evaluation_seconds(self) -> float | None:
        if not self.monitor:
            return None
        self.monitor()  # the first one traces
        return seconds_of(self.monitor)

    def model_bytes(self) -> int:
        if not self.config.export:
            return 0
        served = bytes_of(self.model.teacher.variables)
        return served + bytes_of(
            [*self.model.variables, *self.model.optimizer.variables]
        )

    def pictures(self, board: str) -> dict[str, keras.callbacks.Callback]:
        every = self.config.picture_epochs
        if not every:
            return {}
        pictures = SlotPictures(
            board,
            lambda: picture_of(self.model, self._samples),
            every_epochs=every,
            epochs=self.epochs,
        )
        return {"the picture of the groups": pictures}

    def log_start(self) -> None:
        config = self.config
        report.log_start(
            self.strategy,
            self.source,
            config.batch_size,
            self.steps_per_epoch,
            config.epochs,
            config.peak_lr,
            self.model,
        )
        logging.info("Precision %s, XLA %s", config.precision, self.model.jit_compile)

    def finish(self, products: Products) -> None:
        if self.source.bad.reasons:
            count, where = len(self.source.bad.reasons), self.workdir / "skipped.txt"
            print(f"{count} bad images were replaced: {where}")
        folder = None
        if self.config.export:  # what others wait for comes first
            served = {"serving_size": self.model.serving_size}
            products.make(
                MODEL_FILE,
                lambda: self.save_model(MODEL_FILE),
                needed=True,
                of=served,
            )
            folder = products.make("export", self._export, needed=True, of=served)
        self._evaluate_last()
        if self.scores:
            products.make(SCORES, self.scores.after)
            with self.troubles.of(SCORES):
                self.scores.show()
        picture = products.make("slots.png", self._draw)
        if picture:
            print(f"Picture of the groups: {picture}")
        if folder:
            print(f"For TF Serving: {folder}")

    def _export(self) -> pathlib.Path:
        served = serving_options(self.model)
        about = provenance(self.workdir, self.model)
        folder = self.workdir / "export"
        return export_model(self.model, folder, about=about, **served)

    def _draw(self) -> pathlib.Path:
        path = self.workdir / "slots.png"
        if self.scores:
            self.scores.draw(path)
        else:
            report.draw_slots(self.model, self._samples, path)
        return path

    def _evaluate_last(self) -> None:
        """The scores of the last epoch, where a kill or a failure came before them."""
        last = self.epochs - 1
        row = self.history.rows.get(last, {})
        there = any(row[name] for name in row if name.startswith("val_"))
        if self.monitor and not there and not self.troubles.failed("evaluation"):
            with self.troubles.of("evaluation", last):
                self.history.on_epoch_end(last, val_logs(self.monitor()))

    @functools.cached_property
    def _samples(self):
        return report.sample_images(self.source, 2 * self.config.image_size)
