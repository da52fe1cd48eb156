"""What the benchmarks share: images, turns, and a line about the machine."""

import datetime
import pathlib
import statistics
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from slotcon_tf import processor
from slotcon_tf.data.drawing import draw_scene


def machine():
    """Processor, oneDNN, threads, accelerators, TensorFlow and date, on one line."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    parts = [processor.describe(), *gpus, f"TensorFlow {tf.__version__}"]
    return "; ".join([*parts, datetime.date.today().isoformat()])


def generate(folder, count):
    """JPEGs of scenes at 640x480, quality 90, as photographs are.

    Returns:
        Their paths.
    """
    paths = []
    pathlib.Path(folder).mkdir(exist_ok=True)
    for index in range(count):
        image, _ = draw_scene(np.random.default_rng(index), 480, 640)
        paths.append(pathlib.Path(folder) / f"{index:04d}.jpg")
        Image.fromarray(image).save(paths[-1], quality=90)
    return paths


def in_turns(runs, rounds, warmup=2):
    """Times functions in turns, so that a slow minute of the machine hits all alike.

    Args:
        runs: Dict of name to function without arguments; a function waits for its
            result itself.
        rounds: Timed calls of each.
        warmup: Calls of each before, not timed.

    Returns:
        Dict of name to its list of seconds, one per round.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(a, b):
    """Median over rounds of a's seconds divided by b's in the same round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
