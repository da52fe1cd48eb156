"""How a run ends: by itself, by SIGTERM or Ctrl-C, or by an error that is told."""

import os
import signal
import sys

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.labelled import LabelError
from slotcon_tf.runs.checkpoints import CheckpointError
from slotcon_tf.training.callbacks import Interrupted, NonFiniteError

INTERRUPTED = 143  # exit status; 128 + SIGTERM, which schedulers know


class StopRequest:
    """Context in which the first SIGTERM or SIGINT is noted, not obeyed.

    A second SIGINT ends the process as usual. Called, it says whether to stop.
    """

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number
        name = signal.Signals(number).name
        logging.info("%s: the run stops after this step and saves.", name)

    def __call__(self):
        return self.received is not None


def run_to_the_end(make, name):
    """Makes a run, trains it and finishes it; ends the process where that fails.

    Args:
        make: Function without arguments that returns the run, which has `train(stop)`,
            `finish()`, and `fatal`, the error that ended its input pipeline, or None.
        name: Of the command.
    """
    try:
        run = make()
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f"{name}: {error}")
    try:
        with StopRequest() as stop:
            run.train(stop)
        if run.fatal:
            # Found by threads that read ahead of the last step.
            _end(run.fatal, 1, name)
        run.finish()
    except Interrupted as error:
        _end(error, INTERRUPTED, name)
    except (NonFiniteError, TooManyBadImages, LabelError, CheckpointError) as error:
        _end(error, 1, name)
    except tf.errors.OpError:
        # What stops the input pipeline arrives here as an error of TensorFlow.
        if run.fatal:
            _end(run.fatal, 1, name)
        raise


def _end(error, status, name):
    """Ends the process in the middle of training, with a word.

    At once: threads of the input pipeline still run Python, and an interpreter that
    takes itself apart may wait for them for ever.
    """
    print(f"{name}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
