"""Awkward and broken files: decoded right, or replaced, named and counted."""

import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from slotcon_tf.data import crop_pair_dataset, open_images, open_source
from slotcon_tf.data.bad_images import BadImages, TooManyBadImages
from slotcon_tf.data.listing import is_image_name, list_images
from slotcon_tf.data.source import NumberedSource
from slotcon_tf.images.decoding import BadImage, decode_image
from tests.support.picture_case import encoded


@pytest.fixture
def warnings(monkeypatch):
    found = []
    for module in ("bad_images", "listing"):
        monkeypatch.setattr(
            f"slotcon_tf.data.{module}.logging.warning",
            lambda text, *values: found.append(text % values),
        )
    return found


@pytest.fixture
def folder(tmp_path):
    """Twelve good pictures, each of one grey, and one that is cut off."""
    for index in range(12):
        pixels = np.full((40, 60, 3), 20 * index, np.uint8)
        (tmp_path / f"{index:02d}.jpg").write_bytes(encoded(pixels, quality=95))
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    (tmp_path / "05_cut.jpg").write_bytes(encoded(noise)[:1500])
    return tmp_path


def test_a_bad_file_is_replaced_named_once_and_listed(folder, tmp_path, warnings):
    source = open_source("folder", folder)
    source.bad.write_to(tmp_path / "skipped.txt")
    bad = source.paths.index(str(folder / "05_cut.jpg"))
    others = [source.load(i) for i in range(13) if i != bad]
    assert any(np.array_equal(source.load(bad), other) for other in others)
    stream = crop_pair_dataset(source, batch_size=13, image_size=16, epochs=3)
    assert len(list(stream)) == 3
    assert len(warnings) == 1 and "05_cut.jpg: image file is truncated" in warnings[0]
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{folder / '05_cut.jpg'}\t")


def test_the_list_goes_on_with_the_run(folder, tmp_path):
    skipped = tmp_path / "skipped.txt"
    earlier = f"{folder / '05_cut.jpg'}\ttruncated\ngone.jpg\tno image\n"
    skipped.write_text(earlier)
    source = open_source("folder", folder, max_bad_share=0.5)
    source.bad.write_to(skipped)
    source.bad.add(str(folder / "05_cut.jpg"), "truncated")
    assert skipped.read_text() == earlier
    source.bad.add("new.jpg", "no image")
    assert skipped.read_text() == earlier + "new.jpg\tno image\n"


def test_a_bad_file_changes_no_other_view(folder):
    """The same folder with the file mended: only its own views differ."""
    options = {"batch_size": 13, "image_size": 16, "shuffle": False}
    before = next(iter(crop_pair_dataset(folder, **options)))
    pixels = np.full((40, 60, 3), 200, np.uint8)
    (folder / "05_cut.jpg").write_bytes(encoded(pixels))
    after = next(iter(crop_pair_dataset(folder, **options)))
    place = sorted(os.listdir(folder)).index("05_cut.jpg")
    for key in before:
        same = np.delete(before[key], place, 0), np.delete(after[key], place, 0)
        np.testing.assert_array_equal(*same, err_msg=key)


def test_too_many_bad_files_stop_the_run(folder):
    for index in range(3):
        (folder / f"empty{index}.jpg").write_bytes(b"")
    source = open_source("folder", folder)
    stream = crop_pair_dataset(source, batch_size=16, image_size=16)
    with pytest.raises(tf.errors.OpError, match="At most 10%"):
        list(stream.take(2))
    assert isinstance(source.bad.fatal, TooManyBadImages)
    assert "bad ones among 16" in str(source.bad.fatal)
    source = open_source("folder", folder, max_bad_share=0.5)
    list(crop_pair_dataset(source, batch_size=16, image_size=16).take(1))
    assert len(source.bad.reasons) == 4


def test_too_many_bad_images_stop_every_pass(tmp_path):
    for number in range(16):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.jpg")
    names = [f"{number}.jpg" for number in range(16)] + ["x.jpg", "y.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    source = open_source("list", tmp_path / "list.txt")
    counts = []
    for _ in range(3):
        options = {"batch_size": 4, "image_size": 16, "augment_on": "device"}
        stream = crop_pair_dataset(source, **options, epochs=4)
        with pytest.raises(tf.errors.OpError, match="At most 10%"):
            for _ in stream:
                counts.append(1)
        counts.append(0)
    assert counts[-2:] == [0, 0] and len(source.bad.reasons) == 2
    with pytest.raises(TooManyBadImages):
        source.load(0)
    with pytest.raises(TooManyBadImages):
        source.bad.add(str(tmp_path / "x.jpg"), "known")


@pytest.mark.parametrize(
    ("bad_every", "stops"), [(2, True), (5, True), (12, False), (20, False)]
)
def test_a_run_shorter_than_an_epoch_stops_as_well(bad_every, stops):
    """1000 of a million images, of which one in `bad_every` is bad."""
    bad = BadImages(1_000_000, 0.1)
    bad.at_random = True
    try:
        for number in range(1000):
            if number % bad_every:
                bad.good(str(number))
            else:
                bad.add(str(number), "broken")
    except TooManyBadImages as error:
        assert stops and "read, of 1000000" in str(error)
    assert bool(bad.fatal) == stops


def test_a_few_bad_ones_at_the_start_say_nothing():
    bad = BadImages(1000, 0.1)
    bad.at_random = True
    for number in range(20):
        bad.add(str(number), "broken")
    for number in range(980):
        bad.good(str(number))
    assert not bad.fatal


@pytest.mark.parametrize("kind", ["in order", "shuffled", "tf.data"])
def test_bad_ones_that_lie_together_stop_only_random_order(kind):
    """600 bad images at the start of 12000 are 5%; of 600 read first they are all."""
    good = encoded(np.zeros((8, 8, 3), np.uint8), "PNG")
    images = [b"broken"] * 600 + [good] * 11_400
    if kind == "tf.data":
        images = tf.data.Dataset.from_tensor_slices(images)
    source = open_images(images)
    options = {"batch_size": 200, "image_size": 8, "augment_on": "device"}
    stream = crop_pair_dataset(source, shuffle=kind == "shuffled", **options)
    assert source.bad.at_random == (kind == "shuffled")
    for _ in stream.take(2):
        pass
    assert not source.bad.fatal


def test_warnings_are_limited(tmp_path, warnings):
    for index in range(150):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
        Image.new("RGB", (9, 9)).save(tmp_path / f"{index}.png")
    source = open_source("folder", tmp_path, max_bad_share=1.0)
    for index in range(300):
        source.load(index)
    assert len(source.bad.reasons) == 150
    assert len(warnings) == 101 and "counted" in warnings[-1]


def test_a_folder_of_broken_files_stops(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    source = open_source("folder", tmp_path, max_bad_share=1.0)
    with pytest.raises(TooManyBadImages, match="must be readable"):
        source.load(0)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 10, 50, 99])
def test_one_good_image_replaces_all_others(count):
    source = open_source("fake")
    source.num_images = count
    for index in (0, count - 1):
        tried = list(NumberedSource._numbers_from(source, index))
        assert tried[0] == index and sorted(tried) == list(range(count))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "text file"),
        (b"\xff\xd8\xff\xe0 nothing", "Truncated"),
        (b"neither this nor that", "no known image format"),
        (encoded(np.zeros((90, 90, 3), np.uint8), "PNG")[:-60], "."),
        (encoded(np.zeros((8, 8), np.float32), "TIFF"), "no fixed range"),
    ],
    ids=["empty", "lfs", "html", "header", "unknown", "cut", "float"],
)
def test_reasons(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode_image(data)


def test_pixel_limit_comes_from_the_header():
    data = encoded(np.zeros((300, 400, 3), np.uint8), "PNG")
    with pytest.raises(BadImage, match="400x300 is more than 100000 pixels"):
        decode_image(data, max_pixels=100_000)
    assert decode_image(data, max_pixels=120_000).shape == (300, 400, 3)


@pytest.mark.parametrize("quality", [40, 95])
@pytest.mark.parametrize("kind", [{"subsampling": 0}, {"progressive": True}, {}])
def test_plain_jpegs_decode_as_pillow_does(quality, kind):
    """Odd sizes, with and without subsampled colours: bit for bit."""
    coarse = np.random.default_rng(quality).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((83, 61), Image.BICUBIC))
    data = encoded(pixels, quality=quality, **kind)
    truth = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data), truth)


def test_sixteen_bits_alpha_palette_and_orientation():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    got = decode_image(encoded(ramp, "PNG"))
    assert np.abs(got[..., 1] - ramp / 257).max() < 1
    rgba = np.dstack([np.full((4, 6, 3), 90, np.uint8), np.zeros((4, 6), np.uint8)])
    assert (decode_image(encoded(rgba, "PNG")) == 90).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    pixels = np.zeros((10, 20, 3), np.uint8)
    assert decode_image(encoded(pixels, exif=exif)).shape == (20, 10, 3)


def test_links_and_odd_names(tmp_path, warnings):
    good = encoded(np.full((8, 8, 3), 50, np.uint8))
    (tmp_path / "deep.jpg").mkdir()
    names = [
        "a b(1).JPG",
        "quote'and%20hash#[x].jpg",
        "façade_日本.jpg",
        "two\nlines.jpg",
    ]
    for name in names:
        (tmp_path / "deep.jpg" / name).write_bytes(good)
    os.symlink("..", tmp_path / "deep.jpg" / "up")
    os.symlink("nowhere.jpg", tmp_path / "dangling.jpg")
    os.symlink("loop_b", tmp_path / "loop_a")
    os.symlink("loop_a", tmp_path / "loop_b")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "._side.jpg").write_bytes(b"x")
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:
        file.write(good)
    found = list_images("folder", tmp_path)
    assert len(found) == 5
    assert sum("dangling" in w or "loop" in w for w in warnings) == 3
    source = open_source("folder", tmp_path)
    assert all((source.load(i) == 50).all() for i in range(5))
    os.remove(raw)  # vanishes between listing and reading
    again = open_source("folder", tmp_path)
    again.paths.append(os.fsdecode(raw))
    again.bad.max_share = 1.0
    again.num_images += 1
    assert again.load(4).shape == (8, 8, 3)
    assert "No such file" in warnings[-1] and warnings[-1].isprintable()


def test_names_of_several_lines_are_named_in_one(tmp_path, warnings):
    for name in ("two\nlines.jpg", "a\ttab.jpg", "line\u2028end.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    good = encoded(np.full((8, 8, 3), 50, np.uint8))
    (tmp_path / "z.jpg").write_bytes(good)
    source = open_source("folder", tmp_path, max_bad_share=0.9)
    source.bad.write_to(tmp_path / "skipped.txt")
    for number in range(4):
        source.load(number)
    rows = (tmp_path / "skipped.txt").read_text().splitlines()
    assert [len(row.split("\t")) for row in rows] == [2, 2, 2]
    assert r"two\nlines.jpg" in "".join(rows)
    assert all(warning.isprintable() for warning in warnings)


def test_the_developers_awkward_files(shared_folder, warnings):
    """Each of the 64 files does what its manifest says."""
    nasty = shared_folder / "data" / "nasty"
    manifest = json.loads((nasty / "manifest.json").read_text())
    assert len(manifest["files"]) == 64
    for entry in manifest["files"]:
        path, expected = nasty / entry["file"], entry["expect"]
        try:
            image = decode_image(path.read_bytes())
        except BadImage as error:
            assert expected != "decode", (entry["file"], error)
            assert str(error)
            continue
        assert image.dtype == np.uint8 and image.shape[2] == 3
        listed = is_image_name(entry["file"])
        assert expected != "skip_with_warning" or not listed, entry["file"]
        if expected == "decode" and "exif" not in entry["file"]:
            width, height = entry["decoded_size"]
            assert image.shape == (height, width, 3), entry["file"]
            truth = manifest["reference_quadrants"][entry["reference"]]["rgb"]
            halves = np.array_split(image, 2, axis=0)
            parts = [p for half in halves for p in np.array_split(half, 2, axis=1)]
            means = [part.mean(axis=(0, 1)) for part in parts]
            error = np.abs(np.asarray(means) - truth).max()
            # JPEG's loss, and CMYK inks: the manifest's own readers are off by as much.
            assert error < 12, (entry["file"], error)
