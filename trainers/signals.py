"""How a run stops: SIGTERM and Ctrl-C as a request, and the end of the process."""

import os
import signal
import sys

from absl import logging

INTERRUPTED = 143  # exit status; 128 + SIGTERM, which schedulers know


def end(error, status, name):
    """Ends the process in the middle of training, with a word.

    At once: threads of the input pipeline still run Python, and an interpreter that
    takes itself apart may wait for them for ever.

    Args:
        error: What is said.
        status: Exit status.
        name: Of the command.
    """
    print(f"{name}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
