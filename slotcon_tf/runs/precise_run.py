"""PreciseRun: fine-tunings whose batch statistics are measured before scores are."""

from __future__ import annotations

from collections.abc import Callable

import keras
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.evaluation.results import SCORES
from slotcon_tf.runs.labelled_run import LabelledRun
from slotcon_tf.runs.statistics_pass import StatisticsPass

# What is measured anew where a run's model is not there yet, as hosts tell it.
_MISSING, _THERE = "missing", "there"


class PreciseRun(LabelledRun):
    """A fine-tuning with PreciseBN: on the way, and for good after the last step.

    All hosts of a run measure together; any of them may be stopped meanwhile.

    Attributes:
        statistics: `StatisticsPass` of the model, which `prepare` makes.

    Example:
        >>> from slotcon_tf.runs.detection_run import DetectionRun
        >>> issubclass(DetectionRun, PreciseRun)
        True
    """

    statistics: StatisticsPass
    _is_final = False  # whether the model has its last statistics

    def evaluation_seconds(self) -> float:
        return self.statistics.seconds() + super().evaluation_seconds()

    def of_all_hosts(self, stop: Callable[[], bool]) -> list[keras.callbacks.Callback]:
        def measure(epoch, logs=None):
            done = epoch + 1
            if done == self.epochs or done % self.evaluation_epochs == 0:
                self._measure_statistics(stop)

        def make_up(logs=None):
            if self._lacks_scores():
                self._measure_statistics(stop)
                epoch = self.first_step // self.steps_per_epoch - 1
                with self.troubles.of("evaluation", epoch):
                    if self.chief:
                        self._add_scores(epoch)

        return [
            keras.callbacks.LambdaCallback(on_train_begin=make_up, on_epoch_end=measure)
        ]

    def _lacks_scores(self) -> bool:
        """Whether a run that goes on was stopped before its last row was measured."""
        epochs, rest = divmod(self.first_step, self.steps_per_epoch)
        if not epochs or rest or epochs % self.evaluation_epochs:
            return False
        row = self.history.rows.get(epochs - 1, {}) if self.chief else {}
        there = any(value for key, value in row.items() if key.startswith("val_"))
        said = self.hosts.first_says({SCORES: _THERE if there else _MISSING})
        return said[SCORES] == _MISSING

    def after_training(self, stop: Callable[[], bool]) -> None:
        """Gives the model its last statistics, where training has not done so just now.

        Those of the model's file, if it is there: a run that was killed later goes on.
        """
        if self._is_final:
            return
        there = self.chief and self._load_model()
        said = self.hosts.first_says({self.model_file: _THERE if there else _MISSING})
        if said[self.model_file] == _MISSING:
            self._measure_statistics(stop)

    def _load_model(self) -> bool:
        """Gives the model what its file holds; whether it is there, and whole."""
        path = self._products().path_of(self.model_file)
        if path is None:
            return False
        try:
            self.model.load_weights(path)
        except Exception as error:  # noqa: BLE001  whatever Keras meets in a damaged one
            told = first_line(error, 200)
            logging.warning("%s cannot be read (%s): it is made anew.", path, told)
            path.unlink()
            self.checkpoints.restore()  # a part may have been read
            return False
        return True

    def _measure_statistics(self, stop: Callable[[], bool]) -> None:
        if not self.statistics.gather(stop):
            raise self.interrupted()
        if int(self.model.step.numpy()) == self._last_step:
            self.statistics.apply()
            self._is_final = True
