"""crop_pair_dataset: repeatable, resumable, the same for any number of hosts."""

import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.pipeline import _positions, crop_pair
from slotcon_tf.data.sources import decode_image


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(10):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        where = folder / ("deep/er" if index % 2 else "")
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(where / f"{index}.{'JPG' if index % 2 else 'png'}")
    return folder


def batches(source, count, **options):
    options = {"batch_size": 4, "image_size": 32, "seed": 5, **options}
    stream = crop_pair_dataset(source, **options).take(count)
    return list(stream.as_numpy_iterator())


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


@pytest.mark.parametrize("kind", ["folder", "fake"])
def test_same_seed_same_batches_and_any_start(photos, kind):
    source = open_source(kind, photos)
    first, again = batches(source, 5), batches(source, 5)
    late = batches(source, 2, start_step=3)
    for a, b in zip(first, again, strict=True):
        assert_equal(a, b)
    for a, b in zip(first[3:], late, strict=True):
        assert_equal(a, b)
    other = batches(source, 1, seed=6)[0]
    assert np.abs(other["view_a"] - first[0]["view_a"]).max() > 0


def test_shapes_types_and_ranges(photos):
    dataset = crop_pair_dataset(photos, batch_size=4, image_size=32)
    spec = dataset.element_spec
    assert spec["view_a"].shape == (4, 32, 32, 3)
    assert spec["overlap_b"].shape == (4, 4)
    assert spec["flipped_a"].dtype == tf.bool
    batch = next(iter(dataset))
    assert -2.2 < batch["view_a"].numpy().min() < batch["view_a"].numpy().max() < 2.7


def test_epochs_are_permutations(photos):
    """Every epoch shows different images once, in an order of its own."""
    source = open_source("folder", photos)
    stream = _positions(source, 10, 0, True, 0, 5).take(30)
    order = np.array([int(item) for _, item in stream]).reshape(3, 10)
    assert (np.sort(order, axis=1) == np.arange(10)).all()
    assert (order[0] != order[1]).any() and (order[1] != order[2]).any()


def test_two_hosts_share_the_batches_of_one(photos):
    whole = batches(photos, 3)
    halves = [
        batches(
            photos,
            3,
            input_context=types.SimpleNamespace(
                num_input_pipelines=2, input_pipeline_id=host
            ),
        )
        for host in range(2)
    ]
    for step in range(3):
        joined = {
            k: np.concatenate([halves[0][step][k], halves[1][step][k]])
            for k in whole[step]
        }
        assert_equal(whole[step], joined)


def test_epochs_bound_the_stream(photos):
    stream = crop_pair_dataset(photos, batch_size=4, image_size=32, epochs=3)
    assert len(list(stream)) == 3 * (10 // 4)


def test_views_follow_the_recipes_probabilities():
    """2,000 flips and 600 pairs: within 4 standard errors of the stated shares."""
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)

    @tf.function
    def draw():
        seeds = tf.stack([tf.range(600), tf.fill([600], 3)], axis=1)

        def one(seed):
            pair = crop_pair(image, seed, 16)
            spread = tf.reduce_max(pair["view_b"], -1) - tf.reduce_min(
                pair["view_b"], -1
            )
            return pair["flipped_a"], pair["flipped_b"], tf.reduce_max(spread)

        types_ = (tf.bool, tf.bool, tf.float32)
        return tf.map_fn(one, seeds, fn_output_signature=types_)

    flipped_a, flipped_b, spread = (x.numpy() for x in draw())
    for share in (flipped_a.mean(), flipped_b.mean()):
        assert abs(share - 0.5) < 4 * 0.5 / 600**0.5
    # Grey views: the channels differ by the normalisation alone, about 0.7 at most.
    assert abs((spread < 0.75).mean() - 0.2) < 4 * (0.2 * 0.8 / 600) ** 0.5


def test_sources_and_their_errors(photos, tmp_path):
    assert open_source("folder", photos).num_images == 10
    listing = tmp_path / "list.txt"
    listing.write_text(f"# photos\n{photos / '0.png'} 3\n\n{photos / '2.png'}\n")
    assert open_source("list", listing).num_images == 2
    (tmp_path / "train2017").symlink_to(photos)
    with pytest.raises(FileNotFoundError, match="unlabeled2017"):
        open_source("coco_plus", tmp_path)
    assert open_source("coco", tmp_path).num_images == 10
    with pytest.raises(ValueError, match="Did you mean 'scenes'"):
        open_source("scene")
    with pytest.raises(ValueError, match="no larger than the data set"):
        crop_pair_dataset(photos, batch_size=11)


def test_imagenet_layout(photos, tmp_path):
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    picture = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    picture.write_bytes((photos / "deep/er/1.JPG").read_bytes())
    assert open_source("imagenet", tmp_path).num_images == 1


def test_a_broken_file_is_replaced_and_named_once(tmp_path, monkeypatch):
    for index in range(3):
        Image.new("RGB", (40, 40), (index * 80, 9, 9)).save(tmp_path / f"{index}.jpg")
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    warnings = []
    monkeypatch.setattr(
        "slotcon_tf.data.sources.logging.warning",
        lambda text, *values: warnings.append(text % values),
    )
    source = open_source("folder", tmp_path)
    np.testing.assert_array_equal(source.load(1), source.load(2))
    assert len(batches(source, 2, batch_size=3)) == 2
    assert len(warnings) == 1 and "1.jpg" in warnings[0]


def test_a_folder_of_broken_files_stops(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises((ValueError, tf.errors.OpError), match="must be readable"):
        open_source("folder", tmp_path).load(0)


def test_uncommon_pictures_decode(shared_folder):
    """Awkward files that must decode give RGB of the stated size."""
    import json

    folder = shared_folder / "data" / "nasty"
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert len(files) >= 60
    decoded = 0
    for entry in files:
        path = folder / entry.get("file", entry.get("name", ""))
        if entry.get("expect") != "decode" or path.suffix not in (".jpg", ".png"):
            continue
        image = decode_image(path.read_bytes())
        assert image.dtype == np.uint8 and image.shape[-1] == 3, path.name
        decoded += 1
    assert decoded >= 10


def test_scenes_start_anywhere():
    """Read in sequence, as every tensorflow-datasets source; starting late skips."""
    source = open_source("scenes")
    first = batches(source, 3)
    late = batches(source, 1, start_step=2)
    assert_equal(first[2], late[0])
    assert source.num_images == 3000


def test_an_unprepared_tfds_set_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="tfds build mnist"):
        open_source("tfds:mnist", tmp_path)
