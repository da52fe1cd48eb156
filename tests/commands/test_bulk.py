"""Many images as a user types it: parts, stores, versions, and what is not answered."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export.extraction import ExtractionError, Images
from export.extraction_settings import ExtractionSettings, listed_images
from export.remote import REMOTE
from slotcon_client.extraction import extract
from slotcon_client.shards import features_in, read_manifest
from slotcon_client.table_files import open_table
from slotcon_tf.runs.settings import SettingError
from slotcon_tf.serving.warmup import output_filters
from tests.support.extraction_case import Sizes
from tests.support.picture_case import encoded


class Lengths(tf.Module):
    """A model whose features are the files' lengths, which refuses long ones."""

    def __init__(self, factor):
        super().__init__()
        self.factor = tf.Variable(float(factor))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def image_bytes(self, image_bytes):
        lengths = tf.strings.length(image_bytes)
        tf.debugging.assert_less(lengths, 1000)
        return {
            "pooled": tf.cast(lengths, tf.float32)[:, None] * self.factor,
            "ok": lengths > 0,
            "reason": tf.cast(lengths == 0, tf.int32),
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two versions."""
    folder = tmp_path_factory.mktemp("lengths")
    for version in (1, 2):
        model = Lengths(version)
        signatures = {"image_bytes": model.image_bytes}
        tf.saved_model.save(model, str(folder / str(version)), signatures)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for edge in range(3, 14):
        pixels = np.random.default_rng(edge).integers(0, 256, (3, edge, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{edge:02d}.png")
    (folder / "empty.png").write_bytes(b"")
    return folder


def pooled(path):
    with np.load(path) as table:
        return dict(zip(table["paths"].tolist(), table["pooled"][:, 0], strict=True))


def test_parts_and_their_merge(served, photos, tmp_path, tells):
    copy = tmp_path / "copied" / "2"
    shutil.copytree(served / "2", copy)  # a machine has the version elsewhere
    flags = [f"--images={photos}", f"--output={tmp_path}/all.npz", "--batch_size=3"]
    wholes = {p.name: 2.0 * p.stat().st_size for p in photos.iterdir()}
    for number, place in enumerate((served, copy, served)):
        words = [f"--export_dir={place}", f"--shard={number}/3", *flags]
        status, _, told = tells("export.extract", *words)
        assert status == 0, told
    parts = sorted(tmp_path.glob("all-*-of-00003.npz"))
    assert [len(pooled(part)) for part in parts] == [4, 4, 4]
    asked = [f"--output={tmp_path}/merged.npz", f"{tmp_path}/all-*-of-00003.npz"]
    parts[1].rename(tmp_path / "away.npz")
    status, line, told = tells("export.merge", *asked)
    assert status == 1 and "1 reasons against it" in line
    assert "part 1/3 is missing\n" in told and not (tmp_path / "merged.npz").exists()
    (tmp_path / "away.npz").rename(parts[1])
    first = [f"--export_dir={served / '1'}", "--shard=1/3", *flags]
    assert tells("export.extract", *first)[0] == 0  # of another version
    status, _, told = tells("export.merge", asked[0], *parts)
    assert status == 1 and f"{parts[1]}: version 1, and 2 in {parts[0]}" in told
    second = [f"--export_dir={served}", "--shard=1/3", *flags]
    assert tells("export.extract", *second)[0] == 0
    assert tells("export.merge", asked[0], *parts)[0] == 0
    assert pooled(tmp_path / "merged.npz") == wholes
    settings = open_table(tmp_path / "merged.npz").about["settings"]
    assert settings["version"] == 2 and len(settings["saved_model"]) == 64


def test_an_image_that_is_not_answered_is_an_error(served, photos, tmp_path, tells):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    large = photos / "large.png"
    large.write_bytes(encoded(noise, "PNG"))
    output = tmp_path / "features"
    flags = [f"--export_dir={served}", f"--images={photos}", f"--output={output}"]
    status, line, told = tells("export.extract", *flags)
    assert status == 1 and "must be answered. Received: 1 refused" in line
    assert "failed: large.png (refused: " in told
    assert "failed: empty.png (empty)" in told
    assert not read_manifest(output)["finished"]
    with pytest.raises(ExtractionError, match="must be finished"):
        next(features_in(output))
    large.write_bytes(b"")
    status, _, told = tells("export.extract", *flags)
    assert status == 0 and "failed: large.png (empty)" in told
    (rows,) = features_in(output)
    assert rows["ok"].sum() == 11 and not rows["pooled"][~rows["ok"]].any()
    for file in photos.iterdir():
        file.write_bytes(b"")
    words = [f"--output={tmp_path}/none.npz", *flags[:2]]
    status, line, _ = tells("export.extract", *words)
    assert status == 1 and "such as can be used. Received: none, of 13" in line


def test_another_version_is_told_in_one_line(served, photos, tmp_path, ends):
    output = tmp_path / "features"
    images = f"--images={photos}"
    flags = [images, f"--output={output}"]
    listed = listed_images(photos)
    settings = {"signature": "image_bytes", "outputs": ["pooled"]}
    extract(Sizes().predict, listed, output, settings={"version": 1, **settings})
    status, line = ends("export.extract", f"--export_dir={served}", *flags)
    assert status == 1 and "version: 1 there, 2 now" in line


def test_remote_images_and_outputs(served, photos, tmp_path, tells):
    store = f"ram://bulk-{tmp_path.name}"
    (photos / "empty.png").unlink()  # this store keeps no empty files
    for path in photos.iterdir():
        data = path.read_bytes()
        REMOTE.write(f"{store}/photos/{path.name}", lambda f, d=data: f.write(d))
    flags = [f"--export_dir={served}", f"--images={store}/photos"]
    for number in range(2):
        words = [*flags, f"--output={store}/out", f"--shard={number}/2"]
        status, _, told = tells("export.extract", *words)
        assert status == 0, told
    parts = [f"{store}/out-{i:05d}-of-00002" for i in range(2)]
    assert not any(name.endswith(".partial") for name in REMOTE.names(store))
    words = [*parts, f"--output={tmp_path}/merged.npz"]
    assert tells("export.merge", *words)[0] == 0
    expected = {p.name: 2.0 * p.stat().st_size for p in photos.iterdir()}
    assert pooled(tmp_path / "merged.npz") == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shard": "2/2"}, "`shard` must be i/n, with i from 0 to n - 1"),
        ({"shard": "one/2"}, "`shard` must be i/n"),
        ({"output": "a.json", "signature": "detect", "shard": "0/2"}, "left out"),
        ({"output": "a.npy"}, "a folder has no ending"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(SettingError, match=message):
        ExtractionSettings(**{"images": "photos", "output": "a.npz", **given})


def test_outputs_that_objects_need():
    def fetched(**given):
        config = ExtractionSettings(
            images="photos", output="a.npz", signature="objects", **given
        )
        return config.fetched

    assert fetched() == ("pooled",) and fetched(rows="objects") == ()
    boxes = fetched(rows="objects", outputs=("box", "area"))
    # Of instances all but the masks, and these are warmed up.
    config = ExtractionSettings(
        images="photos", output="a.npz", signature="instances", rows="objects"
    )
    known = [*config.fetched, "mask", "ok", "reason"]
    assert (*config.fetched, "ok", "reason") in output_filters("instances", known)
    assert boxes == ("box", "area", "valid")


def test_parts_of_images_are_all_of_them():
    images = Images("", tuple(f"{i}.jpg" for i in range(11)))
    parts = [images.shard(i, 4) for i in range(4)]
    assert [name for part in parts for name in part.names] == images.names
    assert [len(part.names) for part in parts] == [2, 3, 3, 3]
    assert [part.first for part in parts] == [0, 2, 5, 8]
    with pytest.raises(ExtractionError, match="`shard` must be i/n"):
        images.shard(4, 4)
