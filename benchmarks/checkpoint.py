"""What writing a checkpoint costs a run, at the size of the published recipe.

    python -m benchmarks.checkpoint --folder=/where/runs/are

Training waits while a checkpoint is written; the share is that of a run that writes one
every so many minutes.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

from benchmarks.common import machine
from benchmarks.step_cost import RESNET50, build
from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import Checkpoints
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Config):
    folder: str | None = setting(None, "Disk to write to; the system's if unset.")
    saves: int = setting(7, "Checkpoints written.", low=1)


def measure(config: CheckpointConfig) -> None:
    model = build(RESNET50, RESNET50.num_prototypes[-1])
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        checkpoints = Checkpoints(
            folder, model, PretrainConfig(), steps_per_epoch=1, keep=2
        )
        seconds = []
        for step in range(1, config.saves + 1):
            model.step.assign(step)
            start = time.perf_counter()
            path = checkpoints.save()
            seconds.append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in pathlib.Path(path).iterdir())
        start = time.perf_counter()
        checkpoints.restore()
        read = time.perf_counter() - start
    median = statistics.median(seconds)
    print(f"{machine()}; ResNet-50, K={RESNET50.num_prototypes[-1]}, LARS")
    print(f"a checkpoint's size {size / 2**20:.0f} MiB")
    print(f"written in {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"read in {read:.2f} s")
    for minutes in (10, 30):
        print(f"one every {minutes} minutes: {median / minutes / 60:.2%} of the time")


main = Command("checkpoint", CheckpointConfig, measure, __doc__)

if __name__ == "__main__":
    main()
