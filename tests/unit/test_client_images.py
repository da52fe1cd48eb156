"""The client's pixels, made without TensorFlow, are training's and the graph's."""

import io
import random
import struct
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks.mutations.images import valid_files
from slotcon_client import plain_files, sending
from slotcon_client.errors import MissingPackage
from slotcon_client.images.decoding import decode_pixels
from slotcon_client.images.deep_png import deep_png, write_deep_png
from slotcon_client.images.pixels import BadImage
from slotcon_tf.images import decoding as training
from slotcon_tf.serving.formats import jpeg_orientation
from tests.support.picture_case import encoded

FILES = valid_files(np.random.default_rng(5))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def read(decode, data):
    """Values of pixels, or the reason why there are none."""
    try:
        found = decode(data)
    except BadImage as error:
        return str(error)
    assert found.rgb.dtype == np.uint8
    return found.values


@pytest.mark.parametrize("name", FILES)
def test_every_format_and_its_damage(name):
    """Of damaged bytes each may say why in its own words."""
    rng = random.Random(name)
    data = FILES[name]
    mutants = [data, data[: len(data) // 2], data[:-9]]
    for _ in range(6):
        mutant = bytearray(data)
        mutant[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        mutants.append(bytes(mutant))
    for mutant in mutants:
        ours, truth = read(decode_pixels, mutant), read(training.decode_pixels, mutant)
        assert isinstance(ours, str) == isinstance(truth, str), (ours, truth)
        if not isinstance(truth, str):
            np.testing.assert_array_equal(ours, truth)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_deep_pngs_of_every_kind_and_filter(channels, interlaced):
    """Encoded here by the specification, filters in turn, and read by libpng."""
    rng = np.random.default_rng(channels)
    for height, width in [(1, 1), (3, 2), (13, 17)]:
        values = rng.integers(0, 65536, (height, width, channels), np.uint16)
        data = written(values, interlaced)
        truth = tf.io.decode_png(data, 3, tf.uint16).numpy()
        np.testing.assert_array_equal(deep_png(data), truth)
        shown = values[..., : 1 if channels < 3 else 3]
        np.testing.assert_array_equal(truth, np.broadcast_to(shown, truth.shape))
    for broken in (data[:-20], data[:60], data.replace(b"IDAT", b"IDAX")):
        with pytest.raises(BadImage, match="a broken PNG of 16 bits"):
            deep_png(broken)


def written(values, interlaced):
    """A PNG whose rows have the filters 0 to 4 in turn."""
    height, width, channels = values.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows, stride = [], 2 * channels
    for x, y, dx, dy in passes:
        part = values[y::dy, x::dx]
        if not part.size:
            continue
        pixels = part.astype(">u2").view(np.uint8).reshape(len(part), -1).astype(int)
        above = np.zeros_like(pixels[0])
        for number, row in enumerate(pixels):
            left = np.concatenate([np.zeros(stride, int), row[:-stride]])
            corner = np.concatenate([np.zeros(stride, int), above[:-stride]])
            near = np.array([left, above, corner])
            best = np.abs(left + above - corner - near).argmin(0)
            paeth = np.take_along_axis(near, best[None], 0)[0]
            kind = number % 5
            guess = [0 * left, left, above, (left + above) // 2, paeth][kind]
            rows.append(bytes([kind, *((row - guess) % 256).tolist()]))
            above = row
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlaced)
    packed = zlib.compress(b"".join(rows))
    parts = [(b"IHDR", header), (b"IDAT", packed[:9]), (b"IDAT", packed[9:])]
    found = b"\x89PNG\r\n\x1a\n"
    for name, body in [*parts, (b"IEND", b"")]:
        found += struct.pack(">I", len(body)) + name + body
        found += struct.pack(">I", zlib.crc32(name + body))
    return found


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_deep_pngs_are_written_without_loss(shape):
    values = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    found = tf.io.decode_png(write_deep_png(values), dtype=tf.uint16).numpy()
    np.testing.assert_array_equal(found, values.reshape(5, 7, -1))


def test_orientations_are_the_graphs():
    """Of JPEGs whose EXIF is as it should be, and of such that somebody has damaged."""
    graph = tf.function(jpeg_orientation, [tf.TensorSpec([], tf.string)])
    rng = random.Random(0)
    for orientation in (*range(1, 9), 77):
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        exif[0x0112] = orientation
        for order in ("<", ">"):
            exif.endian = order
            data = encoded(PIXELS, exif=exif)
            place = data.index(b"Exif\0\0")
            assert plain_files.jpeg_orientation(data) == (orientation % 77 or 1)
            for _ in range(25):
                mutant = bytearray(data)
                mutant[place + rng.randrange(60)] = rng.randrange(256)
                mutant = bytes(mutant)[: rng.choice([len(data), place + 40])]
                ours = plain_files.jpeg_orientation(mutant)
                assert ours == int(graph(tf.constant(mutant)))


def test_without_pillow_plain_files_are_sent_and_others_name_it(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = [FILES[name] for name in ("rgb.jpg", "grey.jpg", "rgb.png", "lossy.webp")]
    plain.append(encoded(PIXELS, exif=exif))
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(file, "JPEG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    for data in [b"", *plain]:
        assert sending.served_form(data) == data
    animated = [FILES[name] for name in FILES if "animat" in name]
    for data in [file.getvalue(), FILES["lzw.tif"], *animated]:
        with pytest.raises(MissingPackage, match=r'"slotcon-client\[images\]"'):
            sending.served_form(data)
    damaged = sending.asked([plain[0]])
    next(damaged)
    with pytest.raises(StopIteration):  # nothing can be sent in its place
        damaged.send({"reason": np.array([4])})
