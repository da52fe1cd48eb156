"""What befalls the surroundings of a run, and what must hold then.

Each fault is a function of a course (a run and its places), of its process, which
trains, and of dice. It leaves the surroundings as they were, and raises `Broken` where
the run did not what it should: end in one line, keep its checkpoints, or go on.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
from PIL import Image

from benchmarks.courses import LAST, PATIENCE, Broken, Course, Started
from slotcon_tf.data.drawing import draw_scene
from slotcon_tf.runs import PretrainConfig
from slotcon_tf.runs.signals import INTERRUPTED

BATCH = 4  # images of a step
DISK_MIB = 320  # of the small disk: four checkpoints of 56 MiB, and what else there is


def _refused(course, why, **changes):
    """A start that must be refused in one line, and leave the checkpoints alone."""
    process = Started(course, **changes)
    if process.trains():
        process.kill()
        raise Broken(f"{why}: it went on without a word")
    process.must_end(why, seconds=1)


def _goes_on(course, why, **changes):
    process = Started(course, **changes)
    if not process.trains():
        raise Broken(f"{why}: it did not go on: {process.said()}")
    process.check_first()
    process.kill()


def _data(change):
    """Fault of images that `change`, a function of their paths, has changed."""

    def fault(course, process, dice):
        process.kill()
        whole = course.images.with_name("whole")
        shutil.copytree(course.images, whole)
        try:
            name = change(sorted(course.images.iterdir()), dice)
            _refused(course, f"images {name}")
            if "allow_changed_data" not in PretrainConfig.settings():
                raise Broken("there is no --allow_changed_data")
            copy = dataclasses.replace(course, workdir=course.notes / "copy")
            shutil.copytree(course.workdir, copy.workdir)
            _goes_on(copy, f"images {name}, and allowed", notes="other", changed=True)
        finally:
            shutil.rmtree(course.notes / "copy", ignore_errors=True)
            shutil.rmtree(course.images)
            whole.rename(course.images)

    return fault


def _deleted(paths, dice):
    for path in dice.sample(paths, 3):
        path.unlink()
    return "deleted"


def _truncated(paths, dice):
    path = dice.choice(paths)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "truncated"


def _added(paths, dice):
    shutil.copy(paths[0], paths[0].with_name("zz_added.png"))
    return "added"


def _renamed(paths, dice):
    path = dice.choice(paths)
    path.rename(path.with_name(f"aa_{path.name}"))
    return "renamed"


def _copied(course, process, dice):
    """The same images elsewhere are the same."""
    process.kill()
    other = course.images.with_name("elsewhere")
    shutil.copytree(course.images, other)
    try:
        _goes_on(course, "images copied elsewhere", data=str(other))
    finally:
        shutil.rmtree(other)


def _full(course, process, dice):
    """The disk is full while it trains and at the next start, and free again."""
    ballast = course.workdir / "ballast"
    try:
        _fill(ballast)
        process.must_end("a full disk")
        _fill(ballast)  # what a broken-off checkpoint has left free
        # A step may go before the checkpoint that does not.
        Started(course).must_end("a disk that is still full")
    finally:
        ballast.unlink(missing_ok=True)


def _fill(ballast):
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(2**20))


def _read_only(course, process, dice):
    """The disk is read-only at a start. While a file is open, it cannot become so."""
    process.kill()
    _remount(course, "ro")
    try:
        _refused(course, "a read-only disk")
    finally:
        _remount(course, "rw")


def _remount(course, mode):
    disk = str(course.workdir.parent)
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def _second(course, process, dice):
    """Another run wants the work directory; the first does not notice."""
    other = Started(course, notes="second")
    began = other.trains()
    if began or other.status is None:
        other.kill()
        raise Broken("a second run began in the same work directory")
    other.must_end("a second run")
    if process.status not in (None, 0):
        raise Broken(f"the first run ended: {process.said()}")


def _stopped(course, process, dice):
    """SIGTERM: it saves and ends."""
    process.send(signal.SIGTERM)
    status = process.wait(PATIENCE)
    if status not in (0, INTERRUPTED):
        process.kill()
        raise Broken(f"SIGTERM: status {status}, {process.said()}")
    if course.newest_step() < process.step(LAST):
        raise Broken(f"SIGTERM: step {process.step(LAST)} was not saved")


class TwoHosts:
    """A run of two processes on loopback, of which one is killed now and then."""

    def __init__(self, course: Course, steps: int) -> None:
        self.course = dataclasses.replace(
            course,
            config=course.config.replace(steps=steps),
            notes=course.notes.with_name("host_notes"),
            workdir=course.notes.with_name("hosts"),
        )
        self.begun = self.done = False

    def start(self):
        self.begun = True
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        return [
            Started(self.course, f"host{index}", {"TF_CONFIG": json.dumps(cluster)})
            for index in range(2)
            for cluster in [
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
            ]
        ]

    def lose_one(self, course, process, dice):
        """One of two hosts dies; the other ends with a line, both go on later."""
        process.kill()
        if self.done:
            return
        hosts = self.start()
        before = self.course.newest_step()
        try:
            if not hosts[0].trains():
                self.done = all(host.wait(60) == 0 for host in hosts)
                if not self.done:
                    raise Broken(f"two hosts did not begin: {hosts[0].said()}")
                return
            hosts[0].check_first()
            time.sleep(dice.uniform(0, 2))
            dies = dice.randrange(2)
            hosts[dies].kill()
            hosts[1 - dies].must_end(f"host {dies} died")
            if self.course.newest_step() < before:
                raise Broken(f"checkpoint {before} of two hosts is lost")
        finally:
            for host in hosts:
                host.kill()

    def finish(self, seconds):
        """Lets both run to the end."""
        hosts = self.start()
        ends = [host.wait(seconds) for host in hosts]
        for host in hosts:
            host.kill()
        if ends != [0, 0]:
            raise Broken(f"two hosts ended with {ends}: {hosts[0].said()}")


FAULTS = {
    "stopped": _stopped,
    "deleted": _data(_deleted),
    "truncated": _data(_truncated),
    "added": _data(_added),
    "renamed": _data(_renamed),
    "copied": _copied,
    "full": _full,
    "read_only": _read_only,
    "second": _second,
    "host": None,  # TwoHosts.lose_one
}
OF_DISKS = ("full", "read_only")


@contextlib.contextmanager
def small_disk(folder):
    """A disk of its own in memory, or None where this process may not mount one."""
    disk = pathlib.Path(folder, "disk")
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:  # no such command here
        mounted = False
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def draw_images(folder, steps):
    """Small PNGs, enough for so many steps of an epoch."""
    folder.mkdir()
    for number in range(BATCH * steps):
        pixels, _ = draw_scene(np.random.default_rng(number), 48, 64)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return folder


def free_ports(count):
    """Ports of loopback that nobody listens to."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
