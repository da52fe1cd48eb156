"""How a run ends: by itself, by SIGTERM or Ctrl-C, or by an error that is told."""

from __future__ import annotations

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.labelled import LabelError
from slotcon_tf.runs.checkpoints import CheckpointError
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.lock import WorkdirBusy
from slotcon_tf.training.callbacks import Interrupted, NonFiniteError

INTERRUPTED = 143  # exit status; 128 + SIGTERM, which schedulers know


class RunStopped(CommandError):
    """Training broke off; `__cause__` is why, and what is saved goes on.

    Attributes:
        status: Exit status of a command: 143 after a signal, 1 after an error.

    Example:
        >>> RunStopped(Interrupted("Stopped by a signal after step 3.")).status
        143
    """

    at_once = True

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.status = INTERRUPTED if isinstance(error, Interrupted) else 1


class StopRequest:
    """Context in which the first SIGTERM or SIGINT is noted, not obeyed.

    A second SIGINT ends the process as usual. Called, it says whether to stop. In a
    thread other than the main one signals are left as they are.

    Example:
        >>> with StopRequest() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     print(stop())
        True
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number
        name = signal.Signals(number).name
        logging.info("%s: the run stops after this step and saves.", name)

    def __call__(self) -> bool:
        return self.received is not None


@contextlib.contextmanager
def told_in_training(fatal: Callable[[], BaseException | None]) -> Iterator[None]:
    """Context of a training whose errors become one, `RunStopped`.

    Args:
        fatal: Returns the error that ended the input pipeline, or None.

    Raises:
        RunStopped: If training was asked to stop, or what is not the code's fault
            ended it.

    Example:
        >>> with told_in_training(lambda: TooManyBadImages("3 of 9 images are bad.")):
        ...     pass
        Traceback (most recent call last):
        slotcon_tf.runs.signals.RunStopped: 3 of 9 images are bad.
    """
    try:
        yield
        error = fatal()
        if error:
            # Found by threads that read ahead of the last step.
            raise error
    except (
        Interrupted,
        NonFiniteError,
        TooManyBadImages,
        LabelError,
        CheckpointError,
        WorkdirBusy,
    ) as error:
        raise RunStopped(error) from error
    except tf.errors.OpError:
        # What stops the input pipeline arrives here as an error of TensorFlow.
        error = fatal()
        if error:
            raise RunStopped(error) from error
        raise
