"""Feeds damaged files to every reader; each must end in an answer or a refusal.

    python -m benchmarks.soak --minutes=20

Decoder, served decoder, records, checkpoints and labels are read in processes of their
own, all at once. Printed are, of each: files tried, taken, refused with a documented
error, tracebacks (any other error) and deaths (the process ended, or was silent for too
long). What caused the last two is kept, and makes the exit status 1.
"""

import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zlib

import numpy as np

from slotcon_tf.progress import bar
from slotcon_tf.runs.command import Command, CommandError
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoakConfig(Config):
    minutes: float = setting(20.0, "How long.", low=0.0)
    files: int = setting(0, "End after so many of each; 0: by time.", low=0)
    soak_seed: int = setting(0, "Of the damage.", low=0)
    keep: str = setting("soak_findings", "Folder for what is found.")


COLUMNS = ("tried", "taken", "refused", "tracebacks", "deaths")
_TRIED, _TAKEN, _REFUSED, _TRACEBACKS, _DEATHS = range(len(COLUMNS))
SILENCE = 120.0  # seconds without a file after which a process is ended
START = 900.0  # seconds until the first one: libraries are loaded, graphs are traced
MEMORY = 4 * 2**30  # bytes that a reader may take beyond what it starts with
_TAIL = 5000  # characters of what a process wrote before it died
_BATCH = 8  # images of a request to the served decoder


def decoder(rng, folder):
    """What training and evaluation read images with."""
    from benchmarks.mutations.images import image_files
    from slotcon_tf.images.decoding import BadImage, decode_image

    def read(files):
        (data,) = files.values()
        decode_image(data)

    del folder
    return ({name: data} for name, data in image_files(rng)), read, BadImage


def served_decoder(rng, folder):
    """The decoder of SavedModels, by requests of several images."""
    import tensorflow as tf

    from benchmarks.mutations.images import image_files
    from slotcon_tf.serving.decoding import OK, decode_batch

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def served(data):
        return decode_batch(data, 32, crop=False, max_pixels=10**6)

    def requests():
        files = image_files(rng)
        while True:
            batch = itertools.islice(files, _BATCH)
            yield {f"{i}_{name}": data for i, (name, data) in enumerate(batch)}

    def read(files):
        images, reasons = served(tf.constant(list(files.values())))
        bad = reasons.numpy() != OK
        if images.numpy()[bad].any():
            raise AssertionError("An image that is not ok must be zeros.")
        return int(np.sum(~bad))

    del folder
    return requests(), read, ()


def records(rng, folder):
    """Folders of records."""
    from benchmarks.mutations.records import mutated_records, write_folder
    from slotcon_tf.data.records import RecordReader
    from slotcon_tf.images.decoding import BadImage, decode_image

    def folders():
        for name, shard, index in mutated_records(rng, sys.maxsize):
            yield {f"{name}.tfrecord": shard, f"{name}.npz": index}

    def read(files):
        write_folder(folder, *files.values())
        reader, bad = RecordReader(folder), None
        for number in range(reader.num_images):
            try:
                decode_image(reader.read(number))
            except BadImage as error:  # an image of its folder only
                bad = error
        if bad:
            raise bad

    return folders(), read, (BadImage, ValueError, FileNotFoundError)


def checkpoints(rng, folder):
    """Encoders and whole models, as .pth, .safetensors and .keras."""
    from benchmarks.mutations.checkpoints import mutated, small_checkpoints
    from slotcon_tf.interop.pickles import CheckpointFileError
    from slotcon_tf.interop.pretrained import load_pretrained

    whole = folder / "whole"
    whole.mkdir(exist_ok=True)
    valid = small_checkpoints(whole)

    def read(files):
        ((name, data),) = files.items()
        path = folder / name
        path.write_bytes(data)
        load_pretrained(path, strict=False)

    return (
        (dict([mutated(valid, rng)]) for _ in itertools.count()),
        read,
        (CheckpointFileError),
    )


def labels(rng, folder):
    """Label maps, class files and the JSON of panoptic sets."""
    from benchmarks.mutations.labels import MAKERS, REFUSALS
    from benchmarks.mutations.labels import read as read_set

    def sets():
        for kind in itertools.cycle(MAKERS):
            yield {kind: MAKERS[kind](rng)[1]}

    def read(files):
        ((kind, data),) = files.items()
        read_set(kind, data, folder)

    return sets(), read, REFUSALS


READERS = (decoder, served_decoder, records, checkpoints, labels)


def run(config: SoakConfig) -> None:
    end = time.monotonic() + 60 * config.minutes
    with tempfile.TemporaryDirectory() as folder:
        counts = soak(
            READERS,
            pathlib.Path(folder),
            pathlib.Path(config.keep),
            end=end,
            files=config.files or sys.maxsize,
            seed=config.soak_seed,
        )
    print(f"{'':16}" + "".join(f"{name:>12}" for name in COLUMNS))
    for name, row in counts.items():
        print(f"{name:16}" + "".join(f"{int(count):>12,}" for count in row))
    if any(row[_TRACEBACKS:].any() for row in counts.values()):
        raise CommandError(f"What did it is in {config.keep}.")


def soak(readers, folder, keep, *, end, files, seed=0):
    """Runs readers side by side until `end`, or until each has had its files.

    Args:
        readers: Functions of a module: (numpy Generator, pathlib.Path of a folder) to
            an iterator of requests, a function that reads one, and the errors that
            refuse it. A request is a dict of file name to bytes. What the function
            returns, if anything, is how many of the files were taken.
        folder: Where they work.
        keep: Folder for the requests that raised something else, or ended a process.
        end: time.monotonic() at which all is over.
        files: Of each reader.
        seed: Of the damage.

    Returns:
        Dict of the reader's name to int64 (5,), as `COLUMNS`.
    """
    watched = [_Watched(reader, folder, keep, files, seed) for reader in readers]
    progress = bar(total=max(1, int(end - time.monotonic())), desc="soak", unit="s")
    with progress:
        while time.monotonic() < end and not all([w.look() for w in watched]):
            time.sleep(0.2)
            progress.n = int(progress.total - max(0.0, end - time.monotonic()))
            progress.update(0)
    return {w.name: w.stop() for w in watched}


class _Watched:
    """A reader's process, begun anew after each death."""

    def __init__(self, reader, folder, keep, files, seed):
        self.reader, self.keep, self.files = reader, keep, files
        self.name = reader.__name__
        self.folder = folder / self.name
        self.folder.mkdir()
        # In a file, so that a death loses no count.
        shape, path = (len(COLUMNS),), self.folder / "counts"
        self.counts = np.memmap(path, np.int64, "w+", shape=shape)
        self.seed = seed
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        args = (self.reader, self.folder, self.keep, self.files, self.seed)
        self.process = context.Process(target=_work, args=args, daemon=True)
        self.process.start()
        self.seed += 1
        self.began = self.seen = int(self.counts[_TRIED])
        self.when = time.monotonic()

    def look(self):
        """Whether all files have been tried; starts the process again if it died."""
        tried = int(self.counts[_TRIED])
        if tried > self.seen:
            self.seen, self.when = tried, time.monotonic()
        limit = SILENCE if tried > self.began else START
        silent = time.monotonic() - self.when > limit
        if self.process.is_alive() and not silent:
            return False
        if self.process.exitcode == 0:
            return True
        how = "silent" if silent else f"exit status {self.process.exitcode}"
        messages = (self.folder / "messages.txt").read_text(errors="replace")
        self.process.kill()
        self.process.join()
        self.counts[_DEATHS] += 1
        _keep(
            self.folder / "request",
            self.keep / f"{self.name}_{tried}",
            f"{how}\n{messages[-_TAIL:]}",
        )
        self._start()
        return False

    def stop(self):
        self.process.kill()
        self.process.join()
        return np.array(self.counts)


def _work(reader, folder, keep, files, seed):
    """The process of a reader."""
    # Decoders write a line for many a file.
    os.dup2(os.open(folder / "messages.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    counts = np.memmap(folder / "counts", np.int64, "r+")
    rng = np.random.default_rng([seed, zlib.crc32(reader.__name__.encode())])
    place = folder / "place"
    place.mkdir(exist_ok=True)
    requests, read, refusals = reader(rng, place)
    limited, parent = False, os.getppid()
    for request in requests:
        if counts[_TRIED] >= files or os.getppid() != parent:
            return
        _write(folder / "request", request)
        taken = 0
        try:
            found = read(request)
            taken = len(request) if found is None else found
            counts[_TAKEN] += taken
            counts[_REFUSED] += len(request) - taken
        except refusals:
            counts[_REFUSED] += len(request)
        except Exception:  # noqa: BLE001  that it is caught is what is counted
            counts[_TRACEBACKS] += len(request)
            name = f"{reader.__name__}_{counts[_TRIED]}"
            _keep(folder / "request", keep / name, traceback.format_exc())
        counts[_TRIED] += len(request)
        if not limited:  # after the first one, which has loaded every library
            limited = True
            _limit_memory()


def _limit_memory():
    if not os.path.exists("/proc/self/statm"):
        return  # no Linux
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def _write(folder, request):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in request.items():
        (folder / name).write_bytes(data)


def _keep(request, folder, why):
    folder.mkdir(parents=True, exist_ok=True)
    if request.is_dir():
        shutil.copytree(request, folder, dirs_exist_ok=True)
    (folder / "why.txt").write_text(why)


main = Command("soak", SoakConfig, run, __doc__)

if __name__ == "__main__":
    main()
