"""A function in a process of its own: its own memory, and its own oneDNN."""

import concurrent.futures
import multiprocessing
import os

from slotcon_tf.processor import ONEDNN


def in_own_process(function, *args, onednn=None):
    """Calls a function in a new process.

    Args:
        function: Of a module, and so found by its name.
        *args: What it is called with.
        onednn: Whether that process's TensorFlow computes with oneDNN; None leaves it
            to the environment and the processor.

    Returns:
        What the function returns.
    """
    before = os.environ.get(ONEDNN)
    if onednn is not None:
        os.environ[ONEDNN] = str(int(onednn))
    try:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *args).result()
    finally:
        os.environ.pop(ONEDNN, None)
        if before is not None:
            os.environ[ONEDNN] = before
