"""Commands of this project as a user types them, in processes of their own.

Nothing here has a limit of its own where a process runs: the test's limit ends it.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import checkpoint_paths, largest_difference

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
SAVED_MODEL_CLI = "tensorflow.python.tools.saved_model_cli"  # TensorFlow's own
# Modules with a `main`: those that are installed as console scripts, and ours.
COMMANDS = [
    *(f"trainers.{name}" for name in ("pretrain", "finetune_segmentation")),
    "trainers.finetune_detection",
    *(f"trainers.{name}" for name in ("evaluate", "visualize", "convert")),
    *(f"trainers.{name}" for name in ("prepare", "check_data")),
    *(f"export.{name}" for name in ("saved_model", "extract", "client")),
    *(f"export.{name}" for name in ("compare", "merge", "server")),
]
BENCHMARKS = [
    *(f"benchmarks.{name}" for name in ("checkpoint", "convolutions", "endurance")),
    *(f"benchmarks.{name}" for name in ("input_pipeline", "memory", "serving")),
    *(f"benchmarks.{name}" for name in ("soak", "step")),
]
# A short pretraining of the smallest network: as Python has it, and as flags.
TINY_RUN = PretrainConfig(
    dataset="fake",
    arch="resnet10",
    image_size=32,
    num_prototypes=8,
    hidden_dim=16,
    projection_dim=8,
    batch_size=4,
    max_steps_per_epoch=2,
    warmup_epochs=1,
    precision="float32",
)
TINY = sorted(set(TINY_RUN.lines()) - set(PretrainConfig().lines()))


def run(*words, check=True):
    """Runs a command in the project's folder; returns the finished process."""
    done = subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def module(name, *flags, check=True):
    """`python -m NAME FLAGS`."""
    return run(sys.executable, "-m", name, *map(str, flags), check=check)


# Each line in a process of its own that runs its module as `python -m` does, forked
# from one that has imported TensorFlow, which has started nothing by then.
_FORKED = """
import json, os, runpy, sys, tempfile
import slotcon_tf
ended = []
for name, *flags in json.loads(sys.argv[1]):
    texts = [tempfile.TemporaryFile() for _ in range(2)]
    child = os.fork()
    if not child:
        for number, text in enumerate(texts, 1):
            os.dup2(text.fileno(), number)
        sys.argv = [name, *flags]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for text in texts:
        text.seek(0)
        said.append(text.read().decode(errors="replace"))
    ended.append([status, *said])
print(json.dumps(ended))
"""


def modules(*lines, check=True):
    """Several commands, one after the other; importing takes its seconds once.

    Args:
        lines: (name of the module, *flags) of each.
        check: Whether all must succeed.

    Returns:
        List of their subprocess.CompletedProcess.
    """
    words = json.dumps([[str(word) for word in line] for line in lines])
    ended = json.loads(run(sys.executable, "-c", _FORKED, words).stdout)
    done = [
        subprocess.CompletedProcess(line, *end)
        for line, end in zip(lines, ended, strict=True)
    ]
    for each in done if check else ():
        assert each.returncode == 0, (each.args, each.stderr[-3000:])
    return done


def pretrain_command(*flags):
    return [sys.executable, "-m", "trainers.pretrain", *flags]


def pretrain(*flags, check=True):
    """Runs the trainer; returns the finished process."""
    return module("trainers.pretrain", *flags, check=check)


@contextlib.contextmanager
def started(*words, **variables):
    """A command that runs meanwhile, its log in a pipe; killed if it still does."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**ENVIRONMENT, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition, what="it", process=None, seconds=400):
    """Waits for a condition, which a process that has ended can no longer meet."""
    end = time.monotonic() + seconds
    while not condition():
        ended = process is not None and process.poll() is not None
        # Asked once more: the last thing it did may have been just that.
        assert not ended or condition(), f"{what} did not come: the process ended"
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)


def difference(first, second):
    """Largest difference of any saved number of two runs' newest checkpoints."""
    newest = [checkpoint_paths(run / "checkpoints")[0] for run in (first, second)]
    return largest_difference(*newest)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
