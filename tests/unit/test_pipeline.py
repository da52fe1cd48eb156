"""crop_pair_dataset: repeatable, resumable, the same for any number of hosts."""

import io
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.passes import positions
from slotcon_tf.data.photometric import apply_distortions


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
    options = {"batch_size": 4, "image_size": 32, "seed": 5, "epochs": None, **options}
    stream = crop_pair_dataset(source, **options).take(count)
    return list(stream.as_numpy_iterator())


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


@pytest.mark.parametrize(
    "kind", [pytest.param("folder", marks=pytest.mark.slow), "fake"]
)
def test_same_seed_same_batches_and_any_start(photos, kind):
    """Step 37 lies in the middle of an epoch of the fake images, at 256 steps each."""
    source = open_source(kind, photos)
    first, again = batches(source, 39), batches(source, 39)
    late = batches(source, 2, start_step=37)
    for a, b in zip(first, again, strict=True):
        assert_equal(a, b)
    for a, b in zip(first[37:], late, strict=True):
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
    stream = positions(source, 10, 0, True, 0).take(30)
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


@pytest.mark.parametrize("batch_size", [4, 5])
def test_threads_and_replicas_change_nothing(photos, batch_size):
    """One thread, and batches cut for replicas: the same views at the same places."""
    whole = crop_pair_dataset(photos, batch_size=batch_size, image_size=32, epochs=None)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    single = whole.with_options(options).take(4)
    parts = whole.rebatch(1).batch(batch_size).take(4)
    for a, b, c in zip(whole.take(4), single.as_numpy_iterator(), parts, strict=True):
        assert_equal({k: v.numpy() for k, v in a.items()}, b)
        joined = {k: tf.reshape(v, a[k].shape).numpy() for k, v in c.items()}
        assert_equal(joined, b)


def test_colours_may_change_on_the_device(photos):
    """The same views as on the host, up to a level where XLA rounds otherwise."""
    (host,) = batches(photos, 1)
    (raw,) = batches(photos, 1, augment_on="device")
    assert raw["view_a"].dtype == np.uint8
    device = apply_distortions(raw)
    assert set(device) == set(host)
    for view in ("view_a", "view_b"):
        error = np.abs(device[view] - host[view])
        assert (error > 1e-5).mean() < 5e-3 and error.max() < 0.06
    np.testing.assert_array_equal(device["overlap_b"], host["overlap_b"])
    with pytest.raises(ValueError, match="augment_on must be one of host, device"):
        crop_pair_dataset(photos, batch_size=4, augment_on="gpu")


def test_epochs_bound_the_stream(photos):
    stream = crop_pair_dataset(photos, batch_size=4, image_size=32, epochs=3)
    assert len(list(stream)) == 3 * (10 // 4)


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


def test_remote_paths_are_read(photos):
    """TensorFlow's in-memory file system stands for gs:// and the like."""
    tf.io.gfile.makedirs("ram://bucket/deep")
    for name in ("0.png", "2.png"):
        with tf.io.gfile.GFile(f"ram://bucket/deep/{name}", "wb") as file:
            file.write((photos / name).read_bytes())
    source = open_source("folder", "ram://bucket")
    assert source.num_images == 2 and source.paths[0].startswith("ram://")
    local = open_source("folder", photos)
    truth = local.load(local.paths.index(str(photos / "2.png")))
    np.testing.assert_array_equal(source.load(1), truth)
    assert not source.bad.reasons


def test_imagenet_layout(photos, tmp_path):
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    picture = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    picture.write_bytes((photos / "deep/er/1.JPG").read_bytes())
    assert open_source("imagenet", tmp_path).num_images == 1


@pytest.mark.slow
def test_scenes_start_anywhere():
    """Read in sequence, as every tensorflow-datasets source; starting late skips."""
    source = open_source("scenes")
    first = batches(source, 3)
    late = batches(source, 1, start_step=2)
    assert_equal(first[2], late[0])
    assert source.num_images == 3000


class TinyCoco(tfds.core.GeneratorBasedBuilder):
    """Images beside other features, as tfds's own coco/2017 has them; one is broken."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        box = tfds.features.BBoxFeature()
        features = {
            "image": tfds.features.Image(),
            "objects": tfds.features.Sequence(box),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for index in range(12):
            encoded = io.BytesIO()
            pixels = rng.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(encoded, "JPEG")
            data = encoded.getvalue()[: 900 if index == 7 else None]
            boxes = [tfds.features.BBox(0.1, 0.1, 0.5, 0.5)]
            yield index, {"image": io.BytesIO(data), "objects": boxes}


def test_tfds_sets_are_read_by_name(tmp_path):
    """Shuffled, complete, startable in the middle of an epoch, past a bad image."""
    quiet = tfds.download.DownloadConfig(try_download_gcs=False)
    TinyCoco(data_dir=tmp_path).download_and_prepare(download_config=quiet)
    source = open_source("tfds:tiny_coco", tmp_path)
    assert source.num_images == 12
    orders = [
        [int(number) for number, _ in source.examples([3, epoch])] for epoch in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]
    first, late = batches(source, 5), batches(source, 2, start_step=3)
    for a, b in zip(first[3:], late, strict=True):
        assert_equal(a, b)
    one_by_one = crop_pair_dataset(source, batch_size=4, image_size=32, seed=5)
    twice = [b for _ in range(2) for b in one_by_one.as_numpy_iterator()]
    for a, b in zip(first, twice, strict=False):
        assert_equal(a, b)
    assert len(twice) == 6 and int(one_by_one.cardinality()) == 3
    assert len(source.bad.reasons) == 1 and "tiny_coco" in next(
        iter(source.bad.reasons)
    )


def test_an_unprepared_tfds_set_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="tfds build mnist"):
        open_source("tfds:mnist", tmp_path)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"image_size": (32, 32)},
            r"image_size.*whole.*\(32, 32\).*square: give their",
        ),
        ({"image_size": 0}, "image_size must be a whole number from 1.*0"),
        ({"batch_size": 4.0}, "batch_size must be a whole number from 1.*4.0"),
        ({"batch_size": True}, "batch_size must be a whole number.*True"),
        ({"seed": None}, "seed must be a whole number.*None"),
        ({"start_step": -3}, "start_step must be a whole number from 0.*-3"),
        ({"min_scale": 2.0}, "min_scale must be a share.*2.0"),
        ({"min_scale": 0.0}, "min_scale must be a share.*0.0"),
    ],
    ids=str,
)
def test_settings_are_refused_in_one_line(photos, setting, words):
    with pytest.raises(ValueError, match=words) as caught:
        batches(photos, 1, **setting)
    assert "\n" not in str(caught.value)
