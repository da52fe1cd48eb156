"""open_images: what people hold is trained on as it is, or refused in one line."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_images, open_source
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.sources import source_of

N = 10
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 24, 32, 3), dtype=np.uint8)
FLOATS = (IMAGES / 255).astype(np.float32)


def from_tensors(*tensors):
    return tf.data.Dataset.from_tensor_slices(tensors if tensors[1:] else tensors[0])


def views(source, **options):
    given = {"batch_size": 4, "image_size": 16, "augment_on": "device", "epochs": 4}
    stream = crop_pair_dataset(source, **{**given, **options}).take(4)
    return np.concatenate([b["view_a"] for b in stream.as_numpy_iterator()])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{number}.png" for number in range(N)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    return paths


class Items:
    """A data set of (image, class), as PyTorch's are."""

    def __len__(self):
        return N

    def __getitem__(self, number):
        return IMAGES[number], 7


@pytest.mark.parametrize(
    "make",
    [
        lambda files: IMAGES,
        lambda files: tf.constant(IMAGES),
        lambda files: list(IMAGES),
        lambda files: [Image.fromarray(image) for image in IMAGES],
        lambda files: [{"image": image, "label": 3} for image in IMAGES],
        lambda files: files,
        lambda files: [str(path) for path in files],
        lambda files: np.array([str(path) for path in files]),
        lambda files: [path.read_bytes() for path in files],
        lambda files: Items(),
        lambda files: files[0].parent,
    ],
    ids=[
        "array",
        "tensor",
        "list",
        "pil",
        "dicts",
        "paths",
        "names",
        "array_of_names",
        "bytes",
        "items",
        "folder",
    ],
)
def test_numbered_images_are_those_of_the_folder(files, make):
    source = source_of(make(files))
    assert source.num_images == N
    loaded = [source.load(number) for number in range(N)]
    np.testing.assert_array_equal(loaded, IMAGES)


def test_an_array_gives_the_views_of_its_folder(files):
    np.testing.assert_array_equal(views(IMAGES), views(files[0].parent))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda files: from_tensors(IMAGES), None),
        (lambda files: from_tensors(IMAGES, np.arange(N)), None),
        (lambda files: from_tensors(IMAGES).map(lambda x: {"image": x}), None),
        (lambda files: from_tensors(IMAGES).filter(lambda x: True), None),
        (lambda files: from_tensors(IMAGES).filter(lambda x: True), N),
        (lambda files: from_tensors([p.read_bytes() for p in files]), None),
        (lambda files: lambda: iter(IMAGES), N),
        (lambda files: lambda: iter(files), N),
        (lambda files: lambda: (p.read_bytes() for p in files), N),
        (lambda files: lambda: zip(map(Image.open, files), range(N), strict=True), N),
    ],
    ids=[
        "tf",
        "tuple",
        "dict",
        "counted",
        "told",
        "encoded",
        "function",
        "paths",
        "bytes",
        "pil",
    ],
)
def test_images_in_sequence_are_shuffled_and_complete(files, make, count):
    source = open_images(make(files), count)
    assert source.num_images == N
    loaded = [source.load(*item) for item in source.examples(None).as_numpy_iterator()]
    np.testing.assert_array_equal(loaded, IMAGES)
    numbers = [
        [int(number) for number, _ in source.examples([1, epoch])] for epoch in (0, 1)
    ]
    assert numbers[0] != numbers[1] and sorted(numbers[0]) == list(range(N))


@pytest.mark.parametrize("kind", ["tf", "function"])
def test_images_in_sequence_are_repeatable(kind):
    make = {
        "tf": lambda: from_tensors(IMAGES),
        "function": lambda: lambda: iter(IMAGES),
    }
    source = open_images(make[kind](), N)
    first, again = views(source), views(source, start_step=2)
    np.testing.assert_array_equal(first[8:], again[:8])


def test_grey_arrays_and_images_of_many_sizes():
    grey = IMAGES[..., 0]
    for images in (grey, grey[..., None]):
        np.testing.assert_array_equal(open_images(images).load(3)[..., 2], grey[3])
    sizes = [np.full((8 + n, 9, 3), n, np.uint8) for n in range(5)]
    for source in (sizes, open_images(lambda: iter(sizes), 5)):
        assert len(views(source, batch_size=5)) == 20


def test_numbers_of_a_known_range_are_taken():
    """As `pixel_range` says, by every door; and 16 bits by the rule for files."""
    limits = {"pixel_range": (0, 1)}
    own = OwnSource(FLOATS)
    own.pixel_range = (0, 1)
    for source in (
        open_images(FLOATS, **limits),
        open_images(list(FLOATS), **limits),
        open_images(from_tensors(FLOATS), **limits),
        open_images(lambda: iter(FLOATS), N, **limits),
        source_of(own),
        open_images(IMAGES.astype(np.uint16) * 257),
        open_images(from_tensors(IMAGES.astype(np.uint16) * 257)),
        open_images(np.dstack([IMAGES[0], IMAGES[0, :, :, :1]])[None]),
    ):
        item = (0,)
        if source.in_order:
            item = next(source.examples(None).as_numpy_iterator())
        np.testing.assert_array_equal(source.load(*item), IMAGES[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOATS, r"float32 .* from 0 to 1\. Give np.round\(255"),
        (FLOATS * 255, r"float32 .* from 0 to 255\. Give np.round\(image\)"),
        (FLOATS - 0.5, "Map its range"),
        (IMAGES.astype(int), "int64"),
        (IMAGES > 9, "bool"),
        (np.moveaxis(IMAGES, -1, 1), "Channels come last"),
        (IMAGES[0], r"which is one. Give images\[None\]"),
        (IMAGES[..., :2], r"Give image\[..., :1\]"),
        (IMAGES[:0], "must hold images"),
        ([], "must hold images"),
        ([IMAGES, IMAGES], "a batch: give one image"),
        ([3, 4], "int64"),
        (iter(IMAGES), "read only once"),
        ((image for image in IMAGES), "read only once"),
        (lambda: iter(IMAGES), "need num_images"),
        ({"a": IMAGES[0]}, "Give list"),
        (3, "Received: int"),
        (from_tensors(IMAGES).batch(2), "unbatch"),
        (from_tensors(IMAGES).repeat(), "Leave .repeat"),
        (from_tensors(FLOATS), "tf.round"),
        (from_tensors(["a.jpg", "b.jpg"]), "Give the list of the paths"),
        (from_tensors(IMAGES).take(0), "must hold images"),
        (["no/a.jpg", "no/b.jpg"], "none is, of 2 named"),
        (["/", "/usr"], "name files. Received: 2 folders, the first /. Name the"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(images, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        crop_pair_dataset(images, batch_size=1, image_size=16)
    assert "\n" not in str(caught.value)


def test_functions_must_keep_their_promises(files):
    once = iter(IMAGES)
    with pytest.raises(ValueError, match="a new iterator each time"):
        open_images(lambda: once, N)
    with pytest.raises(ValueError, match="float32"):
        open_images(lambda: iter(FLOATS), N)
    with pytest.raises(ValueError, match="as many images as num_images"):
        open_images(lambda: iter(IMAGES[:2]), N)
    short = open_images(lambda: iter(IMAGES[:7]), N)
    with pytest.raises(tf.errors.OpError, match="10 elements but contained only 7"):
        views(short)


def test_an_order_that_changes_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(
        "slotcon_tf.data.memory_sources.logging.warning",
        lambda text, *values: told.append(text % values),
    )
    open_images(from_tensors(IMAGES))
    assert not told
    tf.random.set_seed(1)
    open_images(from_tensors(IMAGES).shuffle(N))
    assert len(told) == 1 and "another order" in told[0]


def test_bad_ones_among_good_ones_are_replaced_and_counted(files):
    mixed = [*IMAGES[:9], FLOATS[9]]
    for source in (
        open_images(mixed, max_bad_share=0.2),
        open_images(lambda: iter(mixed), N, max_bad_share=0.2),
        open_images([*files[:9], "gone.png"], max_bad_share=0.2),
    ):
        assert len(views(source, batch_size=10)) == 40
        assert len(source.bad.reasons) == 1


class OwnSource:
    num_images = N

    def __init__(self, images):
        self.images = images

    def load(self, number):
        return self.images[number]


def test_somebodys_own_source_is_checked():
    np.testing.assert_array_equal(views(OwnSource(IMAGES)), views(IMAGES))
    with pytest.raises(ValueError, match="float32"):
        crop_pair_dataset(OwnSource(FLOATS), batch_size=2)
    later = source_of(OwnSource([*IMAGES[:9], FLOATS[9]]))
    with pytest.raises(tf.errors.OpError, match="must give images"):
        views(later)
    with pytest.raises(TooManyBadImages, match="must give images"):
        later.load(0)


def test_own_subclasses_are_checked_too(files):
    class Halved(type(open_source("fake"))):
        def load(self, index):
            return super().load(index) / 255

    with pytest.raises(ValueError, match="float64"):
        crop_pair_dataset(Halved(), batch_size=2)
