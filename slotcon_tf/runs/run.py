"""Run: what pretraining and fine-tuning share."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import keras
import tensorflow as tf
from absl import logging

from slotcon_tf.devices import best_precision
from slotcon_tf.files import written_whole
from slotcon_tf.runs import loop, workdir
from slotcon_tf.runs.callbacks import UserCallbacks
from slotcon_tf.runs.checkpoints import CheckpointError, Checkpoints
from slotcon_tf.runs.host_descriptions import description
from slotcon_tf.runs.host_restore import restore_together
from slotcon_tf.runs.hosts import Hosts
from slotcon_tf.runs.kept_data import RunData
from slotcon_tf.runs.kept_files import set_aside_damaged
from slotcon_tf.runs.lock import held
from slotcon_tf.runs.meeting import HostError
from slotcon_tf.runs.places import HISTORY
from slotcon_tf.runs.plan_steps import plan_of
from slotcon_tf.runs.products import Products, RunUnfinished
from slotcon_tf.runs.run_plan import Plan
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.signals import RunStopped, StopRequest, told_in_training
from slotcon_tf.runs.strategy import any_worker, spans_hosts
from slotcon_tf.runs.training_callbacks import training_callbacks
from slotcon_tf.runs.work import Work
from slotcon_tf.training.auxiliaries import Troubles
from slotcon_tf.training.callbacks import Interrupted, StoppedByCallback
from slotcon_tf.training.monitoring import CsvHistory

_ENDLESS = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)


class Run(Work):
    """One run: everything is checked and built here, before training starts.

    A subclass says what is learned from which images: `Work`.

    Args:
        config: Its settings.
        callbacks: Keras callbacks beside those that `config.callbacks` names.
        hosts: The hosts that share it; None: this one is alone.

    Attributes:
        config: The settings; `precision` is no longer "auto".
        workdir: pathlib.Path of what it writes.
        identity: `Identity` of its data; its `digest` is the same on all hosts.
        model: The compiled model.
        strategy: The tf.distribute strategy.
        chief: Whether this process is the one that writes files.
        writes: Whether it does: not in a dry run.
        first_step: The step it goes on from; 0 at the start.
        troubles: Record of the auxiliaries (evaluation, history, pictures ...) that
            failed; they end nothing.

    Raises:
        ValueError, OSError: If a setting or an image set cannot be used.
        WorkdirError: If the work directory is another run's, or of other data.
        CheckpointError: If no checkpoint of the run can be read.

    Example:
        >>> import tempfile
        >>> from slotcon_tf.runs import PretrainConfig
        >>> from slotcon_tf.runs.pretraining import PretrainRun
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=3,
        ...     max_steps_per_epoch=2, num_prototypes=4, hidden_dim=8, projection_dim=8,
        ...     warmup_epochs=0, precision="float32", workdir=tempfile.mkdtemp(),
        ... )
        >>> with own_process():
        ...     run: Run = PretrainRun(config)  # nothing is trained yet
        >>> run.first_step, run.steps_per_epoch, run.length
        (0, 2, 'All 3 epochs')
    """

    history: CsvHistory  # of the process that writes

    def __init__(
        self,
        config: RunSettings,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        hosts: Hosts | None = None,
    ) -> None:
        self.hosts = hosts or Hosts()
        self.strategy = self.build_strategy(config)
        self.chief = self.hosts.leads
        self.writes = self.chief and not config.dry_run
        self.user_callbacks = UserCallbacks(config, callbacks, used=self.chief)
        if config.precision == "auto":
            # Resolved for good: a run that goes on elsewhere must not change.
            config = config.replace(precision=best_precision())
        self.config = config
        self.troubles = Troubles(fatal=(CheckpointError, HostError))
        self.workdir = pathlib.Path(config.workdir)
        keras.config.set_dtype_policy(config.precision)
        count = len(self.hosts.cluster.names)
        own = description(config, self.strategy, count)
        self.hosts.compare(own, "the same settings, versions and number of replicas")
        self.open_images()
        self.identity = self.identify()
        data = {"images": repr(self.identity), "digest": self.identity.digest[:12]}
        self.hosts.compare(data, "the same images")
        # Just before the weights are drawn: what came before may have used randomness.
        keras.utils.set_random_seed(config.seed)
        with self.strategy.scope():
            self.model = self.build_model()
            # Not only at the first step: checkpoints hold it.
            self.model.optimizer.build(self.model.trainable_variables)
        workdir.check(config, self.chief)
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            self.model,
            config,
            steps_per_epoch=self.steps_per_epoch,
            data=RunData(
                self.identity,
                self.steps_per_epoch,
                self.epochs * self.steps_per_epoch,
                getattr(self.model, "total_steps", None),
            ),
            keep=config.keep_checkpoints,
            keep_every_epochs=config.keep_every_epochs,
            writes=self.writes,
            means=not spans_hosts(self.strategy),
        )
        self.first_step = restore_together(self.hosts, self.checkpoints)
        self.hosts.latest = self.checkpoints.latest
        self.hosts.compare(
            {"step": str(self.first_step)}, "the step to go on from, and one `workdir`"
        )
        self.prepare()
        if self.writes:
            workdir.claim(config)
            set_aside_damaged(self.workdir)
        if not config.dry_run:
            self.begin()

    @classmethod
    @contextlib.contextmanager
    def begun(
        cls, config: RunSettings, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> Iterator[Self]:
        """Context of a run that has met its hosts and holds its work directory."""
        with own_process(), cls.meet(config) as hosts:
            writes = hosts.leads and not config.dry_run
            with held(config.workdir, writes):
                yield cls(config, callbacks, hosts=hosts)

    def to_the_end(self) -> Self:
        """Trains what is left, and finishes; in a dry run, prints the plan instead.

        Raises:
            RunStopped: If training broke off.
            RunUnfinished: If training is done, and a model for others is missing.
        """
        if self.config.dry_run:
            found = self.plan()
            if self.chief:
                print(found)
            return self
        with told_in_training(lambda: self.fatal), StopRequest() as stop:
            self.train(stop)
            anyone = any_worker(self.strategy)
            self.after_training(lambda: anyone(stop()))
            if stop():  # since the last save
                raise self.interrupted()
        with self.hosts.finishing():
            if self.chief:
                self._complete()
        return self

    def interrupted(self) -> Interrupted:
        """The error of a stop after what the newest checkpoint holds."""
        return Interrupted(
            f"Stopped by a signal after step {int(self.model.step.numpy())}, which is "
            f"saved in {self.checkpoints.latest()}. The same command goes on from "
            "there."
        )

    def _complete(self) -> None:
        products = self._products()
        self.finish(products)
        if failed := self.troubles.summary():
            logging.warning("Auxiliaries that failed in this run: %s.", failed)
        if products.missing:
            raise RunUnfinished(
                f"Training is done and saved in {self.checkpoints.latest()}, and "
                f"{' and '.join(products.missing)} could not be written, as a warning "
                "above says. The same command writes what is missing."
            )
        products.end()

    def plan(self) -> Plan:
        """What ten steps tell of the rest; the model is ten steps further then.

        Raises:
            RunStopped: If a step breaks off.
            CommandError: If a step does not fit into memory.
        """
        with told_in_training(lambda: self.fatal):
            return plan_of(self)

    def _products(self) -> Products:
        return Products(self.workdir, self._last_step, self.troubles, ended=self.done)

    def train(self, stop: Callable[[], bool]) -> None:
        """Trains to the end, or until `stop()` asks for the end after a step."""
        self.log_start()
        logging.info("Trained on %r", self.identity)
        if self.chief:
            self._open_history()
        if self.done:
            logging.info("%s are done already.", self.length)
            if self.chief and not self.checkpoints.ended:
                # Less data may be less steps: what is allowed now is so for good.
                with self.troubles.of("the identity of the data"):
                    self.checkpoints.keep_data()
            return
        if self.first_step:
            latest = self.checkpoints.latest()
            logging.info("Resumed after step %d from %s", self.first_step, latest)
        if self.chief:
            self._products().forget()
        try:
            loop.train(
                self.model,
                self.distributed,
                batch_size=self.config.batch_size,
                steps_per_epoch=self.steps_per_epoch,
                epochs=self.epochs,
                callbacks=training_callbacks(self, stop),
                look_at=self.look_at,
                shows_progress=self.chief,
                of_any_size=self.batches_vary,
            )
        except StoppedByCallback as error:
            raise RunStopped(error) from error

    def _open_history(self) -> None:
        """The rows of the epochs that are done, of the file and of the checkpoint."""
        latest = self.checkpoints.latest()
        self.history = CsvHistory(
            self.workdir / HISTORY,
            self.epochs if self.done else self.first_step // self.steps_per_epoch,
            kept=latest / HISTORY if self.first_step and latest else None,
        )
        with self.troubles.of("history"):
            self.history.write()

    @property
    def done(self) -> bool:
        """Whether nothing is left to train, though data may have grown since."""
        return self.first_step >= self._last_step

    @property
    def _last_step(self) -> int:
        """Of the run; where data has grown since its end, the step of then."""
        if self.checkpoints.ended:
            return self.first_step
        return self.epochs * self.steps_per_epoch

    def distributed(self, step: int) -> Any:
        """The stream from a step on, cut for the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return self.dataset(step)

        def cut(context):
            size = context.get_per_replica_batch_size(self.config.batch_size)
            batches = self.dataset(step, context).rebatch(size, drop_remainder=True)
            # Of a stream that may end, several hosts leave the number of images open.
            return batches.apply(_ENDLESS) if self.batches_vary else batches

        return self.strategy.distribute_datasets_from_function(cut)

    def save(self) -> pathlib.Path:
        """Writes a checkpoint; the end of another host does not break it off."""
        with self.hosts.writing():
            return self.checkpoints.save({HISTORY: self.history.text()})

    def save_model(self, name: str) -> pathlib.Path:
        """Writes the whole model into the work directory, as a Keras file."""
        path = self.workdir / name
        with written_whole(path) as aside:
            self.model.save(aside)
        return path


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Context of a run: Keras's policy, which it sets for the process, ends with it.

    Example:
        >>> with own_process():
        ...     keras.config.set_dtype_policy("mixed_bfloat16")
        >>> keras.config.dtype_policy().name
        'float32'
    """
    policy = keras.config.dtype_policy()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
