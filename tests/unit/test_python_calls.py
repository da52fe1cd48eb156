"""A process ends though pipelines that call Python are still reading."""

import subprocess
import sys

import pytest

from tests.support.command import ENVIRONMENT, ROOT

# Iterators that live to the end of the interpreter, in the middle of their calls. What
# is registered first is called last at the end.
SCRIPT = """
import atexit, time
calls = {"begun": 0, "ended": 0}

def look():
    time.sleep(0.5)  # for one that might still begin
    print(calls["begun"] - calls["ended"])

atexit.register(look)
import numpy as np
from slotcon_tf.data import crop_pair_dataset, open_images
from slotcon_tf.data.objects.object_images import ObjectImages, Record
from slotcon_tf.detection import object_batches
from slotcon_tf.segmentation import Augmentation, crop_dataset

class Slow:
    num_images = 64
    def load(self, index):
        calls["begun"] += 1
        time.sleep(0.2)
        calls["ended"] += 1
        labels = np.repeat(np.uint8([0, 1]), 2048).reshape(64, 64)
        return np.zeros((64, 64, 3), np.uint8), labels
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return self.load(index)[0]

def crops():
    augment = Augmentation(scale=(64, 64), crop_size=32)
    return crop_dataset(Slow(), augment, batch_size=8)

def objects():
    records = [
        Record.of_objects(n, "a", 64, 64, [[9, 9, 40, 20]], [0]) for n in range(64)
    ]
    images = ObjectImages("mine", records, Slow().__getitem__, {3: "cat"})
    sizes = {"short_edges": (64,), "long_edge": 64}
    return object_batches(images, batch_size=8, **sizes)

def pairs():
    return crop_pair_dataset(open_images(Slow()), batch_size=8, epochs=9)

"""


@pytest.mark.parametrize("kind", ["crops", "objects", "pairs"])
def test_a_script_ends_when_no_call_is_left(kind):
    script = f"{SCRIPT}stream = iter({kind}())\nnext(stream)\n"
    options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", script], timeout=240, **options)
    assert done.returncode == 0 and done.stdout == "0\n", done.stderr
    assert "StopIteration" not in done.stderr and "Traceback" not in done.stderr
