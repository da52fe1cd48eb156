"""trainers.finetune_detection in float64; every host keeps what it ends with.

So that hosts are compared with one to the last digits. With STOP=statistics in its
environment a process gets SIGTERM after the first batch of PreciseBN.
"""

import dataclasses
import os
import signal

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.runs import DetectionConfig
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.detection_run import DetectionRun
from slotcon_tf.runs.run_settings import precision_setting

STOP, KEPT = "STOP", "KEPT"  # environment variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactConfig(DetectionConfig):
    precision: str = precision_setting("float64", default="float64")


class SignalledRun(DetectionRun):
    """A run that sends itself the signal that STOP names."""

    def _measure_statistics(self, stop):
        asked = []

        def stop_then():
            asked.append(None)
            if len(asked) == 2 and os.environ.get(STOP) == "statistics":
                os.kill(os.getpid(), signal.SIGTERM)
            return stop()

        super()._measure_statistics(stop_then)


def finetune_exactly(config):
    """Trains in float64, and keeps what it ends with in the file that KEPT names."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    # Two steps take longer to trace than to run.
    tf.config.run_functions_eagerly(True)
    try:
        with SignalledRun.begun(config) as run:
            try:
                run.to_the_end()
            finally:
                if path := os.environ.get(KEPT):
                    np.savez(path, *ended_with(run.model))
    finally:
        keras.config.set_floatx(floatx)
        tf.config.run_functions_eagerly(False)
    return run


def ended_with(model):
    """List of arrays: the mean losses of the last epoch, and all variables."""
    losses = [float(metric.result()) for metric in model.metrics]
    return [np.array(losses), *(variable.numpy() for variable in model.variables)]


def _run(config):
    finetune_exactly(config)


main = Command("finetune_detection", ExactConfig, _run, __doc__)

if __name__ == "__main__":
    main()
