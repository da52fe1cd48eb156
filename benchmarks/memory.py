"""Memory and time of a ResNet-50 step in parts, and with its stages computed again.

    python -m benchmarks.memory

Each form has a process of its own. The memory is what the process grows by from the
traced step to the peak of four steps: activations, gradients, and what updates need.
TensorFlow's allocator takes it in large pieces.
"""

import dataclasses
import pathlib
import resource
import statistics
import threading
import time

import tensorflow as tf

from benchmarks.common import machine
from benchmarks.step import in_own_process
from benchmarks.step_cost import RESNET50, build, view_pairs, wait
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryConfig(Config):
    batch_size: int = setting(16, "Images at once.", low=1, aliases=("images",))


FORMS = {
    "plain": {},
    "remat": {"remat": True},
    "accumulate_steps=2": {"accumulate_steps": 2},
    "accumulate_steps=4": {"accumulate_steps": 4},
    "accumulate_steps=4, remat": {"accumulate_steps": 4, "remat": True},
}


@dataclasses.dataclass(frozen=True)
class Form:
    """A case and the options of its model."""

    case: object
    options: tuple


def measure_all(config: MemoryConfig) -> None:
    print(f"{machine()}; ResNet-50, 224 px, batch {config.batch_size}, float32")
    print(f"{'form':28}{'memory of a step, MiB':>24}{'seconds':>10}{'trace, s':>10}")
    case = dataclasses.replace(RESNET50, batch_size=config.batch_size)
    for name, options in FORMS.items():
        form = Form(case, tuple(options.items()))
        memory, seconds, trace = in_own_process(measure, form)
        print(f"{name:28}{memory:24.0f}{seconds:10.2f}{trace:10.1f}", flush=True)


def measure(form):
    """Peak growth in MiB, seconds of a step, and seconds of its tracing."""
    batch = view_pairs(form.case)
    model = build(form.case, form.case.num_prototypes[0], **dict(form.options))
    step = tf.function(model.train_step)
    start = time.perf_counter()
    step.get_concrete_function(batch)
    seconds, sizes, done = [time.perf_counter() - start], [], threading.Event()
    before = resident()  # tracing takes memory too, which is not the step's

    def watch():
        while not done.wait(0.005):
            sizes.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(4):
        start = time.perf_counter()
        wait(step(batch))
        seconds.append(time.perf_counter() - start)
    done.set()
    watcher.join()
    return (max(sizes) - before) / 2**20, statistics.median(seconds[2:]), seconds[0]


def resident():
    """Bytes of this process in memory, as Linux tells."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


main = Command("memory", MemoryConfig, measure_all, __doc__)

if __name__ == "__main__":
    main()
