"""Every source of images, and every labelled set, is a `Source`; imports are light."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.data import Source, open_images, open_source
from slotcon_tf.data.labelled import open_classified, open_segmented
from slotcon_tf.data.records import shard_name, write_index, write_shard
from slotcon_tf.data.source import spaced
from slotcon_tf.data.sources import source_of
from tests.support.command import ROOT

N = 10


def grey(number):
    """An image of two levels, so that its number can be read off it."""
    pixels = np.full((6, 8, 3), 20 * number, np.uint8)
    pixels[0] = 255
    return pixels


IMAGES = np.stack([grey(number) for number in range(N)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    for folder in ("images", "labels", "classes/cat", "classes/dog"):
        (root / folder).mkdir(parents=True)
    for number, pixels in enumerate(IMAGES):
        image = Image.fromarray(pixels)
        image.save(root / "images" / f"{number}.png")
        image.save(root / "classes" / ("cat", "dog")[number % 2] / f"{number}.png")
        labels = np.uint8(pixels[..., 0] == 255)
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
    files = [(p.name, p.read_bytes()) for p in sorted((root / "images").iterdir())]
    (root / "records").mkdir()
    places = write_shard(root / "records" / shard_name(0, 1), files)
    write_index(root / "records", [places])
    lines = [f"images/{number}.png\n" for number in range(N)]
    (root / "list.txt").write_text("".join(lines))
    return root


class Own:
    """Somebody's object, with no more than a source must have."""

    num_images = N

    def load(self, number):
        return IMAGES[number]


class OwnInOrder(Own):
    def examples(self, seed):
        return tf.data.Dataset.range(N).map(lambda number: (number,))


NUMBERED = {
    "folder": lambda root: open_source("folder", root / "images"),
    "list": lambda root: open_source("list", root / "list.txt"),
    "records": lambda root: open_source("records", root / "records"),
    "array": lambda root: open_images(IMAGES),
    "sequence": lambda root: open_images(list(IMAGES)),
    "own": lambda root: source_of(Own()),
    "label maps": lambda root: open_segmented("folders", root),
    "label maps as images": lambda root: source_of(open_segmented("folders", root)),
    "classes": lambda root: open_classified(
        "class_folders", root, "classes", crop_size=0
    ),
}
IN_ORDER = {
    "tf.data": lambda root: open_images(tf.data.Dataset.from_tensor_slices(IMAGES)),
    "function": lambda root: open_images(lambda: iter(IMAGES), N),
    "own": lambda root: source_of(OwnInOrder()),
}


def numbers(samples):
    return [int(sample.image[-1, -1, 0]) // 20 for sample in samples]


@pytest.mark.parametrize("kind", NUMBERED)
def test_samples_of_what_is_read_by_number_are_spaced(root, kind):
    source = NUMBERED[kind](root)
    assert isinstance(source, Source) and not source.in_order
    found = list(source.sample(5))
    order = [*range(0, N, 2), *range(1, N, 2)] if kind == "classes" else range(N)
    assert numbers(found) == [order[number] for number in (0, 2, 4, 6, 8)]
    assert [sample.place for sample in found] == list(range(5))
    assert all(sample.name for sample in found)
    assert len(list(source.sample(99))) == N


@pytest.mark.parametrize("kind", IN_ORDER)
def test_samples_of_what_is_read_in_order_are_the_first(root, kind):
    source = IN_ORDER[kind](root)
    assert isinstance(source, Source) and source.in_order
    assert numbers(source.sample(3)) == [0, 1, 2]
    assert len(list(source.sample(99))) == N


def test_samples_of_labelled_sets_have_their_labels(root):
    segmented = open_segmented("folders", root)
    for sample in segmented.sample(3):
        assert sample.labels.shape == sample.image.shape[:2]
        np.testing.assert_array_equal(sample.labels == 1, sample.image[..., 0] == 255)
    classified = open_classified("class_folders", root, "classes", crop_size=0)
    assert [s.labels for s in classified.sample(2)] == [0, 1]
    image, label = classified.load(7)
    assert label == 1 and image[-1, -1, 0] == 20 * 5


def test_bad_ones_are_left_out_and_their_places_stay(root, tmp_path):
    for number in range(4):
        Image.fromarray(IMAGES[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_text("no picture")
    for source in (
        open_source("folder", tmp_path, max_bad_share=0.5),
        open_images([*IMAGES[:2], b"no picture", IMAGES[3]], max_bad_share=0.5),
    ):
        assert [sample.place for sample in source.sample(4)] == [0, 1, 3]
        assert len(source.bad.reasons) == 1


def test_numbers_are_spaced_evenly():
    assert spaced(3, 9) == [0, 3, 6] and spaced(None, 3) == spaced(9, 3) == [0, 1, 2]


@pytest.mark.slow
def test_imports_are_light():
    """Nothing heavy until something needs it: in a process of its own."""
    rooms = [
        "images",
        "interop",
        "data",
        "data.labelled",
        "data.sources",
        "evaluation",
        "serving",
    ]
    script = "import sys\n" + "".join(f"import slotcon_tf.{room}\n" for room in rooms)
    heavy = {"numba", "tensorflow_datasets", "tensorflow_serving"}
    script += f"print({heavy} & {{*sys.modules}})"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
