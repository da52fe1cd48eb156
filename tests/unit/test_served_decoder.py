"""The served graph reads what training reads, and no file ends its process."""

import functools
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks.mutations.images import valid_files
from export.sending import ask, served_form
from slotcon_tf.images import BadImage, decode_image, square_in_graph
from slotcon_tf.serving.decoding import decode_batch
from slotcon_tf.serving.formats import REASONS
from tests.support.command import ENVIRONMENT, ROOT
from tests.support.picture_case import encoded, webp_frames

# What is sent as it is; all else becomes a PNG.
AS_IT_IS = ["rgb.jpg", "grey.jpg", "progressive.jpg", "upright.jpg"]
AS_IT_IS += ["rgb.png", "grey_alpha.png", "palette.png", "bits.png", "deep.png"]
AS_IT_IS += ["lossy.webp", "lossless.webp"]
# What the graph itself does not read.
NOT_SERVED = [".tif", ".avif", ".jp2"]
UNKNOWN = [".ppm", ".ico", ".tga"]
FILES = valid_files(np.random.default_rng(3))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@functools.cache
def decoder(size):
    return tf.function(
        functools.partial(decode_batch, size=size, crop=False, max_pixels=10**6),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )


def served(data):
    images, reasons = decoder(0)([data])
    return images.numpy()[0], REASONS[int(reasons[0])]


@pytest.mark.parametrize("name", FILES)
def test_formats(name):
    """Bit for bit as in training: as they are, or as the client sends them."""
    data = FILES[name]
    pixels, reason = served(data)
    try:
        truth = decode_image(data)
    except BadImage:
        assert reason != "ok" and name.endswith((".jp2", *UNKNOWN))
        with pytest.raises(BadImage):
            served_form(data)
        return
    if name.endswith(tuple(NOT_SERVED)):
        assert reason == "not served: send it as an 8-bit PNG"
    elif name.endswith(tuple(UNKNOWN)):
        assert reason == "no known image format"
    else:
        assert reason == "ok"
        np.testing.assert_array_equal(pixels, truth)
    sent = served_form(data)
    assert (sent == data) == (name in AS_IT_IS)
    pixels, reason = served(sent)
    assert reason == "ok"
    np.testing.assert_array_equal(pixels, truth)


def test_heic_is_sent_as_a_png():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(PIXELS)).save(file)
    data = file.getvalue()
    assert served(data)[1] == "not served: send it as an 8-bit PNG"
    found, reason = served(served_form(data))
    assert reason == "ok"
    np.testing.assert_array_equal(found, decode_image(data))


def saved(kind, pixels=PIXELS, **options):
    if "orientation" in options:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = options.pop("orientation")
    return encoded(pixels, kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 5, 8])
def test_orientation_of_every_format(kind, orientation):
    data = saved(kind, orientation=orientation)
    truth = decode_image(data)
    assert (truth.shape[0] == 20) == (orientation == 3)
    found, reason = served(served_form(data))
    assert reason == "ok"
    np.testing.assert_array_equal(found, truth)
    if kind != "TIFF":
        np.testing.assert_array_equal(served(data)[0], truth)


def test_orientation_where_the_graph_does_not_look():
    """Behind a long comment in a JPEG, behind a PNG's pixels, in XMP."""
    jpeg = saved("JPEG", orientation=6)
    comment = b"\xff\xfe" + struct.pack(">H", 6002) + bytes(6000)
    late = jpeg[:2] + comment + jpeg[2:]
    png = saved("PNG", orientation=6)
    place, end = png.index(b"eXIf") - 4, png.index(b"IDAT") - 4
    behind = png[:place] + png[end:-12] + png[place:end] + png[-12:]
    xmp = b'<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'
    for data in (late, behind, saved("WEBP", xmp=xmp)):
        truth = decode_image(data)
        assert truth.shape == (30, 20, 3)
        sent = served_form(data)
        assert sent.startswith(b"\x89PNG") and sent != data
        np.testing.assert_array_equal(served(sent)[0], truth)


@pytest.mark.parametrize("xmp", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("damage", [b"", b"*", b"Exif"])
def test_jpegs_whose_orientation_is_doubtful(xmp, grey, damage):
    """Whatever training makes of them, it is what the client sends."""
    options = {"orientation": 6}
    if xmp:
        text = b'<x:xmpmeta><rdf tiff:Orientation="8"/></x:xmpmeta>'
        options = {"xmp": text, **(options if damage else {})}
    data = saved("JPEG", PIXELS[..., 0] if grey else PIXELS, **options)
    if damage:
        data = data.replace(damage, b"?" * len(damage), 1)
    found, reason = served(served_form(data))
    assert reason == "ok"
    np.testing.assert_array_equal(found, decode_image(data))


@pytest.mark.parametrize("top", [200, 1023, 4095, 16383, 65535])
def test_sixteen_bits_are_read_in_their_cameras_range(top):
    grey = np.linspace(0, top, 600).reshape(20, 30).astype(np.uint16)
    highest = max(top, 255)
    found, reason = served(encoded(grey, "PNG"))
    assert reason == "ok"
    truth = grey.astype(np.uint32) * 255 // highest
    np.testing.assert_array_equal(found, np.repeat(truth[..., None], 3, -1))


@pytest.mark.slow
def test_sixteen_bits_in_a_fixed_range():
    grey = np.linspace(0, 5000, 600).reshape(20, 30).astype(np.uint16)
    options = {"crop": False, "max_pixels": 10**6, "pixel_range": (1000, 4095)}
    found, _ = decode_batch([encoded(grey, "PNG")], 0, **options)
    truth = np.floor((np.clip(grey, 1000, 4095) - 1000) / 3095 * 255 + 0.5)
    np.testing.assert_array_equal(found[0], np.repeat(truth[..., None], 3, -1))
    found, _ = decode_batch([PNG], 0, **options)
    np.testing.assert_array_equal(found[0], PIXELS)


def gif(left, top, size=(40, 50), clear=None):
    """A GIF whose frame is 30 x 20, somewhere on a screen of `size`."""
    options = {} if clear is None else {"transparency": clear}
    image = Image.fromarray(PIXELS).quantize(16)
    file = io.BytesIO()
    image.save(file, "GIF", **options)
    data = bytearray(file.getvalue())
    place = data.index(b",", 13 + 3 * 16)
    struct.pack_into("<HH", data, place + 1, left, top)
    struct.pack_into("<HH", data, 6, *size)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [gif(0, 0), gif(7, 3), gif(7, 3, clear=5), gif(30, 45), gif(0, 0, (10, 5))],
    ids=["corner", "inside", "clear", "over the edge", "larger than the screen"],
)
def test_a_gifs_first_frame_on_its_screen(data):
    found, reason = served(data)
    assert reason == "ok"
    np.testing.assert_array_equal(found, decode_image(data))


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"minimize_size": True}])
def test_a_webps_first_frame(alpha, options):
    data = webp_frames(alpha, **options)
    assert data[12:16] == b"VP8X" and b"ANMF" in data
    found, reason = served(data)
    assert reason == "ok"
    np.testing.assert_array_equal(found, decode_image(data))


def field(data, place, form, *values):
    data = bytearray(data)
    struct.pack_into(form, data, place, *values)
    return bytes(data)


JPEG, PNG = saved("JPEG"), saved("PNG")
BMP, GIF, WEBP = saved("BMP"), gif(0, 0), webp_frames(0)
SOF = JPEG.index(b"\xff\xc0") + 5
ANMF = WEBP.index(b"ANMF") + 8
HEADERS = {
    "nothing": (b"", "empty"),
    "one byte": (b"R", "no known image format"),
    "no more than a magic": (b"BM", "damaged"),
    "riff": (b"RIFF\0\0\0\0WEBP", "damaged"),
    "jpeg of height 0": (field(JPEG, SOF, ">H", 0), "damaged"),
    "jpeg of many pixels": (field(JPEG, SOF, ">HH", 65500, 65500), "too many pixels"),
    "png of height 0": (field(PNG, 20, ">I", 0), "damaged"),
    "png of width 0": (field(PNG, 16, ">I", 0), "damaged"),
    "png of 2^31": (field(PNG, 16, ">II", 2**31, 1), "too many pixels"),
    "png of 2^32": (field(PNG, 16, ">II", 2**32 - 1, 2**32 - 1), "too many pixels"),
    "png that is long": (field(PNG, 16, ">II", 65536, 1), "too many pixels"),
    "png without pixels": (PNG[:33] + PNG[-12:], "damaged"),
    "png cut": (PNG[:-20], "damaged"),
    "png of no length": (field(PNG, 33, ">I", 2**32 - 1), "damaged"),
    "gif of height 0": (field(GIF, GIF.index(b",", 61) + 7, "<H", 0), "damaged"),
    "gif of many pixels": (gif(60000, 60000), "too many pixels"),
    "gif cut": (GIF[:90], "damaged"),
    "bmp of height 0": (field(BMP, 22, "<i", 0), "damaged"),
    "bmp of height -2^31": (field(BMP, 22, "<i", -(2**31)), "too many pixels"),
    "bmp of negative width": (field(BMP, 18, "<i", -30), "damaged"),
    "bmp cut": (BMP[:-1], "damaged"),
    "bmp of runs": (field(BMP, 30, "<I", 1), "not served: send it as an 8-bit PNG"),
    "bmp of 16 bits": (field(BMP, 28, "<H", 16), "not served: send it as an 8-bit PNG"),
    # 256**3 * 256**3 is more than 32 bits, and 64 hold it.
    "webp canvas": (field(WEBP, 24, "<6s", b"\xff" * 6), "too many pixels"),
    "webp frame aside": (field(WEBP, ANMF, "<3s", b"\xff" * 3), "damaged"),
    "webp frame's size": (field(WEBP, ANMF + 6, "<3s", b"\1\0\0"), "damaged"),
    "webp chunk's size": (field(WEBP, ANMF + 20, "<I", 2**32 - 2), "damaged"),
    "webp frame's chunk": (field(WEBP, ANMF - 4, "<I", 20), "damaged"),
    "webp without its header": (WEBP[:12] + WEBP[30:], "damaged"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name):
    data, reason = HEADERS[name]
    assert served(data)[1] == reason


def test_upside_down_bmp():
    data = field(BMP, 22, "<i", -20)
    np.testing.assert_array_equal(served(data)[0], PIXELS[::-1])
    np.testing.assert_array_equal(served(data)[0], decode_image(data))


@pytest.mark.parametrize("size", [0, 16])
def test_an_empty_batch(size):
    images, reasons = decoder(size)(tf.constant([], tf.string))
    assert images.shape == (0, size or 32, size or 32, 3) and reasons.shape == (0,)


@pytest.mark.parametrize("shape", [(1, 30), (700, 3), (1, 1)])
@pytest.mark.parametrize("crop", [True, False])
def test_narrow_images(shape, crop):
    """What the crop shows, of the whole image as Pillow resizes it."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    size = (24, 24)
    if crop:
        size = tuple(27 * edge // min(shape) for edge in shape)
    truth = Image.fromarray(image).resize(size[::-1], Image.BILINEAR)
    truth = np.asarray(truth).astype(np.float32)
    top, left = (round((edge - 24) / 2) for edge in size)
    found = square_in_graph(image, 24, "evaluation" if crop else "stretched")
    assert np.abs(found - truth[top : top + 24, left : left + 24]).max() <= 1


def test_what_the_graph_finds_damaged_gets_a_second_chance():
    """A PNG without its end: training reads it, and the client sends it again."""
    calls = []

    def call(content):
        calls.append(content)
        images, reasons = decoder(16)(content)
        return {"image": images, "ok": reasons == 0, "reason": reasons}

    chunk = PNG.index(b"IDAT") - 4
    # The only chunk of pixels claims more than there is, as streams do.
    open_end = field(PNG, chunk, ">I", 2**15)
    assert served(open_end)[1] == "damaged"
    found = ask(call, [JPEG, open_end, b"no image", PNG])
    assert [len(content) for content in calls] == [4, 1]
    assert [REASONS[i] for i in found["reason"]] == [
        *("ok", "ok", "no known image format", "ok")
    ]
    np.testing.assert_array_equal(found["image"][1], found["image"][3])
    with pytest.raises(BadImage):
        served_form(b"no image")


def test_a_second_answer_may_have_another_size():
    """Where images keep their size, a damaged one has a map of none."""
    open_end = field(PNG, PNG.index(b"IDAT") - 4, ">I", 2**15)

    def call(content):
        images, reasons = decoder(0)(content)
        return {"image": images, "ok": reasons == 0, "reason": reasons}

    whole = call([PNG])["image"]
    assert whole.shape != call([open_end])["image"].shape
    found = ask(call, [open_end])
    assert np.all(found["ok"])
    np.testing.assert_array_equal(found["image"], whole)


# In a process of its own: what it tries ends one, or takes its memory.
FUZZ = """
import functools, resource, struct, sys, zlib
import numpy as np
import tensorflow as tf
from benchmarks.mutations.images import image_files, valid_files
from slotcon_tf.serving.decoding import decode_batch

def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(
        ">I", zlib.crc32(name + body))

decode = tf.function(
    functools.partial(decode_batch, size=32, crop=True, max_pixels=5 * 10**7),
    input_signature=[tf.TensorSpec([None], tf.string)])
rng = np.random.default_rng(int(sys.argv[1]))
whole = valid_files(rng)
decode([*whole.values()])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
# 150 texts of 8 MB each, before or behind the pixels.
png = whole["rgb.png"]
text = chunk(b"zTXt", b"a\\0\\0" + zlib.compress(bytes(7_900_000), 9)) * 150
# 40 frames of 49 megapixels: none of them but the first is looked at.
gif = whole["still.gif"]
image = gif.index(b",", 13 + 3 * 16)
large = gif[: image + 5] + struct.pack("<HH", 7000, 7000) + gif[image + 9 : -1]
frames = gif[:-1] + large[image:] * 40 + b";"
# As wide as it may be, and wider.
wide = [png[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(width + 1), 9)) + chunk(b"IEND", b"")
        for width in (65_535, 40_000_000)]
# 60,000 scans of 49 megapixels.
jpeg = whole["progressive.jpg"]
scans = jpeg[:-2] + jpeg[jpeg.rindex(b"\\xff\\xda"):-2] * 60_000 + jpeg[-2:]
bombs = [png[:33] + text + png[33:], png[:-12] + text + png[-12:], frames, *wide, scans]
reasons = decode(bombs)[1].numpy().tolist()
print("bombs", reasons, round(peak() - before))
tried = 0
files = image_files(rng)
for _ in range(int(sys.argv[2])):
    decode([next(files)[1] for _ in range(16)])
    tried += 16
print("tried", tried, round(peak() - before))
"""


def fuzzed(seed, batches):
    process = subprocess.run(
        [sys.executable, "-c", FUZZ, str(seed), str(batches)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    bombs, tried = process.stdout.splitlines()
    assert bombs.startswith("bombs [0, 0, 0, 0, 3, 4] "), bombs
    assert tried.startswith(f"tried {16 * batches} "), tried
    for line in (bombs, tried):
        assert int(line.split()[-1]) < 400, line  # MB more than before


@pytest.mark.slow
def test_mutated_files_end_nothing():
    fuzzed(0, 30)


@pytest.mark.slow
def test_thousands_of_mutated_files_end_nothing():
    fuzzed(1, 300)
