"""Pixels of every depth by one rule, bands by name, formats from a list, no bombs."""

import io
import shutil
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from slotcon_client.images import decoding
from slotcon_tf.data import crop_pair_dataset, open_source
from slotcon_tf.data.labelled import open_classified, open_segmented
from slotcon_tf.images import BadImage, as_rgb, decode_image, open_image
from slotcon_tf.images.pixels import TOPS
from tests.support.command import module, run

WAVE = np.add.outer(np.sin(np.arange(48) / 7), np.cos(np.arange(64) / 9)) / 4 + 0.5


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(array, *, photometric=1, planar=1, extra=None):
    """A TIFF of any bands, (height, width, bands), uncompressed, little-endian."""
    height, width, bands = array.shape
    if planar == 2:
        array = np.moveaxis(array, -1, 0)
    strips = bands if planar == 2 else 1
    size = array.nbytes // strips
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * array.itemsize] * bands),
        259: ("H", [1]),
        262: ("H", [photometric]),
        277: ("H", [bands]),
        278: ("I", [height]),
        279: ("I", [size] * strips),
        284: ("H", [planar]),
    }
    if array.dtype.kind == "i":
        tags[339] = ("H", [2] * bands)
    if extra is not None:
        tags[338] = ("H", extra)
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    far = sum(len(v) * struct.calcsize(k) for k, v in tags.values() if len(v) > 1)
    first = start + far + 4 * strips
    tags[273] = ("I", [first + i * size for i in range(strips)])
    entries, tail = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"<{len(values)}{kind}", *values)
        if len(raw) > 4:
            place, tail = struct.pack("<I", start + len(tail)), tail + raw
        else:
            place = raw.ljust(4, b"\0")
        code = {"H": 3, "I": 4}[kind]
        entries += struct.pack("<HHI", tag, code, len(values)) + place
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tail
    return head.ljust(first, b"\0") + array.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [255, 1000, 1023, 4095, 10_000, 16_383, 65_535])
def test_sixteen_bits_are_read_in_the_smallest_usual_range(top, kind):
    """12-bit microscopy, and 0..255 in 16 bits, came out black."""
    values = np.round(WAVE / WAVE.max() * top).astype(np.uint16)
    got = decode_image(encoded(values, kind))
    within = next(t for t in TOPS if t >= top)
    np.testing.assert_array_equal(got[..., 0], values.astype(int) * 255 // within)
    assert len(np.unique(got)) > 60 and (got[..., 0] == got[..., 2]).all()


@pytest.mark.parametrize("top", [255, 4095, 65_535])
def test_colour_pngs_of_sixteen_bits_follow_the_same_rule(top):
    """Pillow keeps their upper bytes only."""
    shares = np.stack([WAVE, WAVE / 2, 1 - WAVE], axis=-1) / 1.1
    values = np.round(shares * top).astype(np.uint16)
    data = tf.io.encode_png(values).numpy()
    got = decode_image(data)
    np.testing.assert_array_equal(got, values.astype(int) * 255 // top)
    alpha = np.concatenate([values, np.full((48, 64, 1), 9, np.uint16)], axis=-1)
    np.testing.assert_array_equal(decode_image(tf.io.encode_png(alpha).numpy()), got)
    with pytest.raises(BadImage, match="a broken PNG of 16 bits"):
        decode_image(data[:-200])


@pytest.mark.parametrize(
    ("values", "pixel_range"),
    [
        (WAVE.astype(np.float32), (0, 1)),
        ((WAVE * 300 - 20).astype(np.float32), (-20, 280)),
        ((WAVE * 1e6).astype(np.int32), (0, 1e6)),
        ((WAVE * 3000).astype(np.uint16), (0, 3000)),
    ],
    ids=["shares", "degrees", "whole", "twelve bits"],
)
def test_a_pixel_range_reads_what_has_none(values, pixel_range):
    low, high = pixel_range
    got = decode_image(encoded(values, "TIFF"), pixel_range=pixel_range)
    truth = (values.astype(float) - low) / (high - low) * 255
    assert np.abs(got[..., 1] - truth).max() <= 0.51
    data = encoded(np.full((4, 4, 3), 40, np.uint8))
    assert (decode_image(data, pixel_range=pixel_range) == 40).all()  # 8 bits stay


def test_outside_of_a_range_is_cut_and_no_number_is_dark():
    values = np.float32([[-5, 0, 50, 100, 200, np.nan, np.inf, -np.inf]])
    got = decode_image(encoded(values, "TIFF"), pixel_range=(0, 100))
    assert got[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255, 0]


def test_a_range_holds_for_labelled_images_too(tmp_path):
    """The model's, which they are measured with, by every door."""
    for split, values in (("val", (0, 1000)), ("valannot", (0, 1))):
        (tmp_path / split).mkdir()
        pixels = np.repeat(np.array([values], np.uint16), 4, axis=0)
        Image.fromarray(pixels).save(tmp_path / split / "a.png")
    for name in ("cat", "dog"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        shutil.copy(tmp_path / "val" / "a.png", tmp_path / "classes" / name)
    for pixel_range, level in ((None, 249), ((0, 4000), 64)):
        own = {"pixel_range": pixel_range}
        segmented = open_segmented("folders", tmp_path, **own)
        assert segmented.load(0)[0].max() == level
        options = {"crop_size": 0, **own}
        found = open_classified("class_folders", tmp_path, "classes", **options)
        assert next(iter(found))[0].max() == level
        source = open_source("folder", tmp_path / "val", **own)
        assert next(source.sample(1)).image.max() == source.load(0).max() == level
    with pytest.raises(ValueError, match="low < high"):
        open_segmented("folders", tmp_path, pixel_range=(5, 5))


@pytest.mark.parametrize("pixel_range", [None, (0, 65_535), (0, 4095)])
def test_a_pgm_says_itself_what_white_is(pixel_range):
    values = np.array([[0, 1000, 2000, 4095]], ">u2")
    data = b"P5 4 1 4095\n" + values.tobytes()
    got = decode_image(data, pixel_range=pixel_range)
    assert got[0, :, 0].tolist() == [0, 62, 124, 255]


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 5, 6, 13])
def test_other_bands_are_refused_by_name(bands, dtype, planar):
    """Of RGB and two more Pillow reads three without a word."""
    array = np.ones((8, 9, bands), dtype)
    for photometric, known in ((1, 1), (2, 3)):
        extra = [0] * (bands - known)
        data = tiff(array, photometric=photometric, planar=planar, extra=extra or None)
        named = f"TIFF of {bands} bands of {8 * array.itemsize}-bit whole numbers"
        with pytest.raises(BadImage, match=named):
            decode_image(data)


def test_known_bands_are_read():
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    for data in (
        tiff(array[..., :3], photometric=2),
        tiff(array[..., :3], photometric=2, planar=2),
        tiff(array, photometric=2, extra=[2]),
        tiff(array, photometric=2, extra=[0]),
    ):
        np.testing.assert_array_equal(decode_image(data), array[..., :3])
    grey = decode_image(tiff(array[..., :1]))
    np.testing.assert_array_equal(grey, np.repeat(array[..., :1], 3, axis=-1))
    deep = decode_image(tiff(array[..., :3].astype(np.uint16) * 257, photometric=2))
    np.testing.assert_array_equal(deep, array[..., :3])


@pytest.mark.parametrize("options", [{"top": 4095}, {"top": 65_535, "planar": 2}])
def test_deep_colour_tiffs_that_pillow_would_cut_are_refused(options):
    values = (WAVE[..., None].repeat(3, -1) * options.pop("top")).astype(np.uint16)
    with pytest.raises(BadImage, match="as a PNG of (8 or )?16 bits"):
        decode_image(tiff(values, photometric=2, **options))


def test_tiffs_whose_numbers_pillow_takes_for_others_are_refused():
    """Inverted, as Pillow does with 8 bits only; signed, which it reads as unsigned."""
    grey = np.arange(72, dtype=np.uint8).reshape(8, 9, 1)
    with pytest.raises(BadImage, match="whose 0 is white"):
        decode_image(tiff(grey.astype(np.uint16) * 257, photometric=0))
    inverted = decode_image(tiff(grey, photometric=0))
    np.testing.assert_array_equal(inverted, 255 - np.repeat(grey, 3, -1))
    with pytest.raises(BadImage, match="1 band of 8-bit signed numbers"):
        decode_image(tiff(grey.astype(np.int8)))


def test_a_stack_of_pages_is_refused_and_thumbnails_are_not():
    page = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    small = page.resize((4, 4))
    with pytest.raises(BadImage, match="TIFF stack: several pages of one band"):
        decode_image(encoded(page, "TIFF", save_all=True, append_images=[page] * 4))
    data = encoded(page, "TIFF", save_all=True, append_images=[small])
    assert decode_image(data).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 5, 3), np.float32), "pixels of float32 have no fixed range"),
        (np.zeros((4, 5, 3), np.int64), "pixels of int64 have no fixed range"),
        (np.zeros((4, 5, 3), bool), "pixels must be numbers. Received: bool"),
        (np.zeros((3, 40, 50), np.uint8), "Move the channels last"),
        (np.zeros((40, 50, 5), np.uint8), r"shape \(40, 50, 5\)"),
        (np.zeros((2, 40, 50, 3), np.uint8), r"shape \(2, 40, 50, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
    ],
)
def test_arrays_that_are_no_image(array, reason):
    with pytest.raises(BadImage, match=reason):
        as_rgb(array)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_arrays_become_rgb(shape, dtype):
    array = np.arange(20, dtype=dtype).reshape(shape)
    got = as_rgb(array)
    assert got.shape == (4, 5, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
    np.testing.assert_array_equal(got[..., 2], array.reshape(4, 5))
    shares = np.float32(np.arange(256) / 255).reshape(16, 16)
    back = as_rgb(shares, pixel_range=(0, 1))[..., 0]
    np.testing.assert_array_equal(back.ravel(), np.arange(256))


def test_a_users_own_source_is_looked_at():
    """Its grey images are taken; floats are refused, unless it tells their range."""
    source = types.SimpleNamespace(num_images=4, load=lambda i: np.uint8(WAVE * 200))
    assert len(list(crop_pair_dataset(source, batch_size=4, image_size=16))) == 1
    source.load = lambda i: WAVE.astype(np.float32)
    with pytest.raises(ValueError, match="float32"):
        crop_pair_dataset(source, batch_size=4, image_size=16)
    source.pixel_range = (0, 1)
    assert len(list(crop_pair_dataset(source, batch_size=4, image_size=16))) == 1


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
)


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO", "DDS", "SGI", "IM"])
def test_formats_that_are_not_listed_are_not_opened(kind):
    image = Image.fromarray(np.full((16, 16, 3), 9, np.uint8))
    with pytest.raises(BadImage, match="no known image format|PostScript"):
        decode_image(encoded(image, kind))


def test_postscript_is_named_and_starts_nothing(monkeypatch):
    """Pillow hands it to Ghostscript."""
    started = []
    for name in ("Popen", "check_call", "call", "run"):
        monkeypatch.setattr(subprocess, name, lambda *a, **k: started.append(a))
    with pytest.raises(BadImage, match="PostScript, which is not opened"):
        decode_image(POSTSCRIPT)
    assert not started


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"]
)
def test_listed_formats_are_opened(kind):
    image = Image.fromarray(np.full((16, 24, 3), 96, np.uint8))
    assert np.abs(decode_image(encoded(image, kind)) - 96.0).max() <= 2


def test_heic_is_read_where_pillow_heif_is_installed(monkeypatch):
    data = b"\0\0\0\x18ftypheic" + bytes(40)
    decoding._can_read_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match="HEIC picture: pip install pillow-heif"):
        decode_image(data)
    monkeypatch.undo()
    decoding._can_read_heif.cache_clear()
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.register_heif_opener()
    Image.fromarray(np.full((64, 80, 3), 96, np.uint8)).save(file, "HEIF")
    assert np.abs(decode_image(file.getvalue()) - 96.0).max() <= 3


def test_a_bomb_is_refused_by_its_header():
    """88 megapixels in 0.25 MB; a photograph of as many would have ten times that."""
    head = encoded(Image.new("L", (9900, 8900)))[:60]
    with pytest.raises(BadImage, match="9900x8900 pixels in 251060 bytes: above"):
        decode_image(head + bytes(251_000))  # nothing behind the header could be read
    with pytest.raises(BadImage, match="9900x8900 pixels in"):
        decode_image(encoded(Image.new("L", (9900, 8900)), "GIF")[:4000])
    assert open_image(head + bytes(900_000)).size == (9900, 8900)  # a byte for 98
    small = encoded(Image.new("L", (2000, 2000)))  # 4 MP in 4 kB: does no harm
    assert decode_image(small).shape == (2000, 2000, 3)


def test_few_levels_warn_once_per_data_set(tmp_path, monkeypatch):
    narrow = (WAVE * 40).astype(np.uint16)  # 0..40: seen in a public report
    for index in range(3):
        Image.fromarray(narrow).save(tmp_path / f"{index}.png")
    Image.new("RGB", (9, 9), (7, 7, 7)).save(tmp_path / "blank.png")

    def warned(pixel_range):
        found = []
        monkeypatch.setattr(logging, "warning", lambda m, *a: found.append(m % a))
        source = open_source("folder", tmp_path, pixel_range=pixel_range)
        for index in range(4):
            source.load(index)
        return found

    assert not warned(None) and not warned((0, 40))
    Image.fromarray((WAVE * 3000).astype(np.uint16)).save(tmp_path / "2.png")
    (text,) = warned(None)
    assert "different ranges, 0..255 and 0..4095" in text
    assert "pixel_range=0,4095" in text
    Image.fromarray(narrow).save(tmp_path / "2.png")
    for wrong in ((0, 4095), (0, 65_535)):  # three levels, and one
        (text,) = warned(wrong)
        assert "0.png has fewer than 16 grey levels" in text
        assert "pixel_range" in text and "slotcon-check-data" in text


@pytest.mark.slow
def test_a_users_script_keeps_its_own_warnings():
    script = (
        "import warnings, slotcon_tf.images.decoding;"
        "print(*(f[3] for f in warnings.filters))"
    )
    assert "PIL" not in run(sys.executable, "-c", script).stdout


@pytest.mark.slow
def test_check_data_counts_ranges_and_few_levels(tmp_path):
    for index, top in enumerate((4095, 3000, 900)):
        Image.fromarray((WAVE * top).astype(np.uint16)).save(tmp_path / f"{index}.png")
    Image.fromarray(np.uint8(WAVE > 0.5)).save(tmp_path / "mask.png")
    broken = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\1"  # two entries, and half of one
    Image.fromarray(np.uint8(WAVE * 255)).save(tmp_path / "e.jpg", exif=broken)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        decode_image((tmp_path / "e.jpg").read_bytes())
    done = module("trainers.check_data", f"--data_dir={tmp_path}")
    found = done.stdout
    assert "Corrupt" not in done.stderr
    assert "0..4095                 2" in found and "0..1023                 1" in found
    assert "pixel_range=0,4095" in found
    assert "1 images have fewer than 16 grey levels" in found and "mask.png" in found
