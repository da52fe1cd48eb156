"""Kills a training run again and again, and what it depends on, too.

    python -m benchmarks.endurance --minutes=20
    python -m benchmarks.endurance --detector --kills=5 --steps=60

Two runs of `slotcon_tf.runs.pretrain` on one folder of images, in processes of their
own, on one device. One of them is left alone. The other is killed with SIGKILL at
random moments, most of them while it trains or writes a checkpoint, and started again
with the same command; in between its images are changed, its disk is filled (a small
one in memory, where this process may mount it), another run wants its work directory
(--faults). A third run, of two hosts on loopback, loses one of them. In the end the
first two must be equal, bit for bit, no checkpoint may have been lost on the way, the
histories must have every epoch once, and every end must have been one line.

With --detector the runs are small ones of `slotcon_tf.runs.finetune_detection` on the
embedded scenes, and what they have found in the end must be equal, too.
"""

import collections
import dataclasses
import pathlib
import random
import tempfile
import time

import keras

from benchmarks import courses, faults
from benchmarks.courses import Broken, Course, Started
from benchmarks.faults import TwoHosts
from slotcon_tf.runs import (
    DetectionConfig,
    PretrainConfig,
    finetune_detection,
    pretrain,
)
from slotcon_tf.runs.checkpoints import largest_difference
from slotcon_tf.runs.command import Command, CommandError
from slotcon_tf.runs.places import DETECTOR_FILE, RESULTS
from slotcon_tf.runs.settings import Config, setting

EPOCHS = 10
HOST_STEPS = 40  # of the run of two hosts
_ODDS = 0.5  # that another fault than a kill follows
_OF_DETECTORS = ("stopped", "second")  # faults that are not of a folder of images
_END_SECONDS = 1800  # that a run may take to its end


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnduranceConfig(Config):
    minutes: float = setting(20, "Kill for so long, then let it end.", low=0.0)
    kills: int = setting(0, "Kill so often instead; 0: by minutes.", low=0)
    steps: int = setting(400, "Steps of the run.", low=EPOCHS)
    kill_seed: int = setting(0, "Of the moments.", low=0)
    faults: tuple[str, ...] = setting(
        tuple(faults.FAULTS), "Beside kills.", choices=("none", *faults.FAULTS)
    )
    detector: bool = setting(False, "Of detectors on scenes, not of pretrainings.")
    watched: str | None = setting(
        None, "Internal: this process is a run that is written to, in this folder."
    )
    notes: str | None = setting(None, "Internal: where it notes its steps.")
    data: str | None = setting(None, "Internal: its images.")
    changed: bool = setting(False, "Internal: they may have changed.")

    @property
    def run(self) -> PretrainConfig | DetectionConfig:
        """The run that is killed, and the one that is not; in the folder `watched`."""
        if self.detector:
            return DetectionConfig(
                workdir=self.watched,
                dataset="scenes",
                val_split="test",
                max_val_images=4,
                arch="resnet10",
                train_short_edges=(64, 96),
                short_edge=96,
                long_edge=160,
                channels=8,
                units=16,
                proposals=(50, 30),
                test_proposals=(50, 30),
                anchors_per_image=16,
                regions_per_image=16,
                batch_size=2,
                steps=self.steps,
                warmup_steps=2,
                precise_batches=4,
                precision="float32",
                checkpoint_steps=2,
                num_pictures=0,
            )
        allowed = {"allow_changed_data": True} if self.changed else {}
        return PretrainConfig(
            workdir=self.watched,
            data_dir=self.data,
            arch="resnet10",
            image_size=32,
            num_prototypes=8,
            hidden_dim=16,
            projection_dim=8,
            batch_size=faults.BATCH,
            precision="float32",
            epochs=EPOCHS,
            max_steps_per_epoch=self.steps // EPOCHS,
            warmup_epochs=1,
            checkpoint_steps=2,
            export=False,
            **allowed,
        )


class Notes(keras.callbacks.Callback):
    """Notes, elsewhere, at which step the process began, and every step it has done."""

    def __init__(self, folder):
        super().__init__()
        self.folder = pathlib.Path(folder)

    def on_train_begin(self, logs=None):
        self._note(courses.FIRST)

    def on_train_batch_end(self, batch, logs=None):
        self._note(courses.LAST)

    def _note(self, name):
        (self.folder / name).write_text(str(int(self.model.step.numpy())))


def endurance(config: EnduranceConfig) -> None:
    if config.watched:
        train = finetune_detection if config.detector else pretrain
        train(config.run, callbacks=[Notes(config.notes)])
        return
    with tempfile.TemporaryDirectory() as folder, faults.small_disk(folder) as disk:
        folder = pathlib.Path(folder)
        images = faults.draw_images(folder / "images", config.steps // EPOCHS)
        alone = Course(config, folder / "notes", folder / "undisturbed", images)
        process = Started(alone)
        if process.wait(_END_SECONDS) != 0:
            process.kill()
            raise CommandError(f"The undisturbed run failed: {process.said()}.")
        place = (disk or folder) / "killed"
        seen = Seen(Course(config, folder / "notes", place, images, disk is not None))
        seen.endure()
        worst = largest_difference(alone.newest(), seen.course.newest())
        if config.detector:
            check_detectors(alone.workdir, seen.course.workdir)
    for name, count in seen.counts.items():
        print(f"{name:44}{count:>8}")
    print(f"{'largest difference of any saved number':44}{worst:8g}")
    for text in seen.broken:
        print(f"broken: {text}")
    if worst:
        raise CommandError("The killed run ended elsewhere.")
    if seen.broken:
        raise CommandError(f"What must hold was broken {len(seen.broken)} time(s).")


def check_detectors(first: pathlib.Path, second: pathlib.Path) -> None:
    """Refuses two runs whose detectors, or what these have found, differ."""
    models = [keras.models.load_model(run / DETECTOR_FILE) for run in (first, second)]
    for one, two in zip(*(model.variables for model in models), strict=True):
        if (one.numpy() != two.numpy()).any():
            raise CommandError(f"The detectors differ in {one.path}.")
    found = [(run / RESULTS).read_bytes() for run in (first, second)]
    if found[0] != found[1]:
        raise CommandError("The detectors have found other things.")


class Seen:
    """A run that is killed, and what was seen of it.

    Attributes:
        counts: Number of each event.
        broken: What did not hold, in words.
    """

    def __init__(self, course: Course) -> None:
        self.course, self.config = course, course.config
        self.dice = random.Random(self.config.kill_seed)
        self.counts = collections.Counter({"kills survived": 0})
        self.broken: list[str] = []
        self.hosts = TwoHosts(course, HOST_STEPS)
        disk = () if course.on_small_disk else faults.OF_DISKS
        self._known = [n for n in self.config.faults if n not in (*disk, "none")]
        if self.config.detector:
            self._known = [name for name in self._known if name in _OF_DETECTORS]
        self._turns: list[str] = []

    def endure(self):
        """Kills and restarts the run until enough is enough; then lets it end."""
        end = time.monotonic() + 60 * self.config.minutes
        while True:
            process = Started(self.course)
            kills = self.counts["kills survived"]
            most = self.config.kills
            if kills >= most if most else time.monotonic() > end:
                break
            # One in four kills is blind, and may hit the start; the others wait.
            if self.dice.random() < 0.25:
                process.wait(self.dice.uniform(1, 10))
            elif process.trains():
                process.wait(self.dice.uniform(0, 0.5))
            if process.status is not None:
                break
            begun = process.step(courses.LAST)
            if begun and self._known and self.dice.random() < _ODDS:
                self._turns = self._turns or self.dice.sample(
                    self._known, len(self._known)
                )
                self._meet(self._turns.pop(), process)
            if process.kill():
                self._killed(process)
        if process.wait(_END_SECONDS) != 0:
            process.kill()
            raise CommandError(f"The run failed: {process.said()}.")
        self._holds("the end", self.course.check_history, EPOCHS)
        if self.hosts.begun:
            self._holds("two hosts", self.hosts.finish, _END_SECONDS)
            self._holds("two hosts", self.hosts.course.check_history, EPOCHS)

    def _meet(self, name, process):
        """A fault, once there is a checkpoint, and what it must leave."""
        if not process.until(self.course.newest):
            return
        fault = faults.FAULTS[name] or self.hosts.lose_one
        before = self.course.newest_step()
        held = self._holds(name, fault, self.course, process, self.dice)
        self.counts[f"{name}: {'held' if held else 'broken'}"] += 1
        if self.course.newest_step() < before:
            self.broken.append(f"{name}: checkpoint {before} is lost")

    def _killed(self, process):
        course, newest = self.course, self.course.newest_step()
        self._holds("a kill", process.check_first)
        self.counts["kills survived"] += 1
        asides = (course.workdir / "checkpoints").glob(".writing*")
        half = any(aside.stat().st_mtime > process.at for aside in asides)
        self.counts["of them with a half-written checkpoint"] += half
        self.counts["steps done twice"] += max(process.step(courses.LAST) - newest, 0)

    def _holds(self, name, check, *arguments):
        try:
            check(*arguments)
        except Broken as error:
            self.broken.append(f"{name}: {error}")
            print(self.broken[-1], flush=True)
            return False
        return True


main = Command("endurance", EnduranceConfig, endurance, __doc__)

if __name__ == "__main__":
    main()
