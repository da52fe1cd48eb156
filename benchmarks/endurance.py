"""Kills a training run again and again; its end must be that of an undisturbed one.

    python -m benchmarks.endurance --minutes=30

Both runs are `trainers.pretrain` in processes of their own, on one device. One of them
is killed with SIGKILL at random moments, most of them while it trains or writes a
checkpoint, and started again with the same command. Printed are the kills survived,
those that left a half-written checkpoint, and the steps that had to be done again.
"""

import dataclasses
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import keras

from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.checkpoints import checkpoint_paths, largest_difference, step_of
from slotcon_tf.runs.command import Command, CommandError
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnduranceConfig(Config):
    minutes: float = setting(30, "Kill for so long, then let it end.", low=0.0)
    kills: int = setting(0, "Kill so often instead; 0: by minutes.", low=0)
    steps: int = setting(400, "Steps of the run.", low=2)
    kill_seed: int = setting(0, "Of the moments.", low=0)
    watched: str | None = setting(
        None, "Internal: this process is a run that is written to, in this folder."
    )

    @property
    def run(self) -> PretrainConfig:
        """The run that is killed, and the one that is not; in the folder `watched`."""
        epochs = 2
        return PretrainConfig(
            workdir=self.watched,
            dataset="fake",
            arch="resnet10",
            image_size=32,
            num_prototypes=8,
            hidden_dim=16,
            projection_dim=8,
            batch_size=4,
            precision="float32",
            epochs=epochs,
            max_steps_per_epoch=self.steps // epochs,
            warmup_epochs=1,
            checkpoint_steps=2,
            export=False,
        )


_LAST_WORD = "last_step"


class WatchedRun(PretrainRun):
    """A run that writes down every step it has done."""

    def callbacks(self, stop):
        file = self.workdir / _LAST_WORD
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda *_, **__: file.write_text(
                str(int(self.model.step.numpy()))
            )
        )
        return [note, *super().callbacks(stop)]


def endurance(config: EnduranceConfig) -> None:
    if config.watched:
        WatchedRun(config.run).to_the_end()
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("undisturbed", "killed"):
            (folder / name).mkdir()
        if run(command(config, folder / "undisturbed")).wait():
            raise CommandError("The undisturbed run failed.")
        report = endure(config, folder / "killed")
        worst = largest_difference(
            newest_checkpoint(folder / "undisturbed"),
            newest_checkpoint(folder / "killed"),
        )
    for name, value in report.items():
        print(f"{name:44}{value:>8}")
    print(f"{'largest difference of any saved number':44}{worst:8g}")
    if worst:
        raise CommandError("The killed run ended elsewhere.")


def command(config, workdir):
    """The command line of a run, watched."""
    lines = config.replace(watched=str(workdir)).lines()
    return [sys.executable, "-m", "benchmarks.endurance", *lines]


def run(words):
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def endure(config, workdir):
    """Kills and restarts a run until enough is enough; then lets it end.

    Returns:
        Dict of what was seen.
    """
    dice = random.Random(config.kill_seed)
    end = time.monotonic() + config.minutes * 60
    kills = half_written = repeated = 0

    def enough():
        return kills >= config.kills if config.kills else time.monotonic() > end

    while True:
        # What this process leaves behind is counted, not what the one before did.
        (workdir / _LAST_WORD).unlink(missing_ok=True)
        half, started = workdir / "checkpoints" / ".writing", time.time()
        process = run(command(config, workdir))
        if enough():
            break
        # One in four kills is blind, and may hit the start; the others wait for steps.
        if dice.random() < 0.25:
            moment = time.monotonic() + dice.uniform(1, 10)
            done = wait(process, lambda moment=moment: time.monotonic() > moment)
        else:
            done = wait(process, lambda: steps_done(workdir) > 0)
            time.sleep(dice.uniform(0, 0.5))
        if done or process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        half_written += half.exists() and half.stat().st_mtime > started
        newest = newest_checkpoint(workdir)
        repeated += max(steps_done(workdir) - (step_of(newest) if newest else 0), 0)
    if process.wait():
        raise CommandError(f"The run failed with status {process.returncode}.")
    return {
        "kills survived": kills,
        "of them with a half-written checkpoint": half_written,
        "steps done twice": repeated,
    }


def wait(process, condition):
    """Waits for a condition or the process's end; True if it ended."""
    while not condition():
        if process.poll() is not None:
            return True
        time.sleep(0.02)
    return False


def steps_done(workdir):
    """The last step that the run has noted, 0 before the first."""
    file = workdir / _LAST_WORD
    text = file.read_text() if file.exists() else ""
    return int(text or 0)


def newest_checkpoint(workdir):
    return next(iter(checkpoint_paths(workdir / "checkpoints")), None)


main = Command("endurance", EnduranceConfig, endurance, __doc__)

if __name__ == "__main__":
    main()
