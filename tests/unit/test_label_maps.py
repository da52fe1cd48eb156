"""What label maps may hold: ids, masks of 0 and 255, other depths, EXIF, lists."""

import io
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageFilter, ImageOps

from slotcon_tf.data.labelled import VOID, LabelError, open_segmented
from slotcon_tf.data.labelled.classes import table_of_found
from slotcon_tf.data.labelled.decoding import decode_ids
from tests.support import labelled_case as case

IMAGE, CLASSES = case.scene(0)


def a_set(root, labels, images=None, classes=None):
    """A folder of images with label maps, each an array, an image or bytes."""
    for number, label in enumerate(labels):
        image = images[number] if images else IMAGE
        for folder, what in (("val", image), ("valannot", label)):
            path = root / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, np.ndarray):
                what = Image.fromarray(what)
            if isinstance(what, Image.Image):
                what = encoded(what)
            path.write_bytes(what)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def opened(root, **options):
    return open_segmented("folders", root, "val", **options)


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def ids(*values):
    """Label map whose classes 0 .. 3 are these values."""
    return np.array(values)[CLASSES % len(values)]


def grey(*values):
    return Image.fromarray(ids(*values).astype(np.uint8))


MASK = grey(0, 255)
SPREAD = {
    "grey": encoded(MASK),
    "colours": encoded(MASK.convert("RGB")),
    "opaque": encoded(MASK.convert("RGBA")),
    "grey and alpha": encoded(MASK.convert("LA")),
    "bmp": encoded(MASK, "BMP"),
    "tiff": encoded(MASK, "TIFF", compression="tiff_lzw"),
    "webp": encoded(MASK, "WEBP", lossless=True),
    "three": encoded(grey(0, 128, 255)),
    "three, a level off": encoded(grey(0, 127, 255)),
    "four": encoded(grey(0, 85, 170, 255)),
}


@pytest.mark.parametrize("data", SPREAD.values(), ids=SPREAD)
def test_what_255_is_must_be_said(tmp_path, data):
    with pytest.raises(LabelError) as error:
        opened(a_set(tmp_path, [data]))
    text = str(error.value)
    assert "255" in text and "label_ids=0," in text and "void_ids=" in text
    assert "\n" not in text and "`class_file`" in text


@pytest.mark.parametrize(
    ("options", "classes", "names"),
    [
        ({"void_ids": []}, None, ("0", "255")),
        ({"label_ids": ["0", "255"]}, None, ("0", "255")),
        ({"label_ids": [255, 0]}, None, ("255", "0")),
        ({"label_ids": [0, 255]}, "0 ground\n1 object\n", ("ground", "object")),
        ({"label_ids": [0, 255]}, "ground\nobject\n", ("ground", "object")),
        ({"label_ids": [0, 255]}, "0 ground\n255 object\n", ("ground", "object")),
        ({}, "0 ground\n255 object\n", ("ground", "object")),
    ],
)
def test_what_255_is_can_be_said(tmp_path, options, classes, names):
    data = opened(a_set(tmp_path, [SPREAD["colours"]], classes=classes), **options)
    assert data.class_names == names
    swapped = options.get("label_ids") == [255, 0]
    expected = 1 - CLASSES % 2 if swapped else CLASSES % 2
    np.testing.assert_array_equal(data.load(0)[1], expected)


def test_more_greys_settled(tmp_path):
    root = a_set(tmp_path, [grey(0, 128, 255)])
    assert opened(root, void_ids=["255"]).class_names == ("0", "128")
    data = opened(root, label_ids=[0, 255], void_ids=[128])
    assert set(np.unique(data.load(0)[1])) == {0, 1, VOID}
    # Of what is left, 255 may still be void or a class.
    with pytest.raises(LabelError, match="of 0, 255 only.*void_ids=128,255"):
        opened(root, void_ids=[128])
    with pytest.raises(LabelError, match="128 in 25.0% of its pixels"):
        opened(root, label_ids=[0, 255]).load(0)


def test_what_is_advised_about_strange_ids_helps(tmp_path):
    labels = [grey(0, 1, 7)]
    root = a_set(tmp_path, labels, classes="0 ground\n1 object\n")
    with pytest.raises(LabelError, match="class_file.*'7 void'.*label_ids.*void"):
        opened(root).load(0)
    settled = opened(root, label_ids=[0, 1], void_ids=[7]).load(0)[1]
    (root / "classes.txt").write_text("0 ground\n1 object\n7 void\n")
    np.testing.assert_array_equal(opened(root).load(0)[1], settled)
    assert (settled == VOID).any()


def small_png(bits, values, claimed=None):
    """A grey PNG of 1, 2, 4, 8 or 16 bits per sample; it may claim another size."""
    rows = []
    for row in values.tolist():
        number = 0
        for value in row:
            number = number << bits | value
        rows.append(b"\0" + number.to_bytes(len(row) * bits // 8, "big"))

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    width, height = claimed or values.shape[::-1]
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


PLAIN = {
    "void": (encoded(grey(0, 1, 255)), (0, 1, 255)),
    "from one": (encoded(grey(1, 2, 3, 255)), (1, 2, 3, 255)),
    "gaps": (encoded(grey(0, 5, 21, 255)), (0, 5, 21, 255)),
    "0 and 254": (encoded(grey(0, 254)), (0, 254)),
    "1 bit": (encoded(Image.fromarray(ids(False, True))), (0, 1)),
    "1 bit, fax": (
        encoded(Image.fromarray(ids(False, True)), "TIFF", compression="group4"),
        (0, 1),
    ),
    "2 bits": (small_png(2, ids(0, 1, 2, 3)), (0, 1, 2, 3)),
    "4 bits": (small_png(4, ids(0, 5, 10, 15)), (0, 5, 10, 15)),
    "16 bits": (small_png(16, ids(0, 1, 256, 900)), (0, 1, 256, 900)),
    "32 bits": (
        encoded(Image.fromarray(ids(0, 70_000).astype(np.int32)), "TIFF"),
        (0, 70_000),
    ),
    "equal channels": (encoded(grey(0, 1, 2).convert("RGB")), (0, 1, 2)),
    "opaque": (encoded(grey(0, 1, 2).convert("RGBA")), (0, 1, 2)),
    "palette": (encoded(grey(3, 7).convert("P")), (3, 7)),
    "PGM": (encoded(grey(0, 1), "PPM"), (0, 1)),
}


@pytest.mark.parametrize(("data", "values"), PLAIN.values(), ids=PLAIN)
def test_ids_are_read_as_they_are(tmp_path, data, values):
    found = opened(a_set(tmp_path, [data]))
    kept = [value for value in values if value != 255]
    assert found.class_names == tuple(map(str, kept))
    place = [kept.index(value) if value in kept else VOID for value in values]
    np.testing.assert_array_equal(found.load(0)[1], ids(*place))


ODD = {
    "wide void": (ids(0, 1, 65535).astype(np.uint16), "65535"),
    "wide mask": (ids(0, 65535).astype(np.uint16), "65535"),
    "negative": (ids(-1, 0, 1).astype(np.int32), "-1"),
    "instances": (ids(7, 24000, 24001, 26000).astype(np.uint16), "24000, .* instances"),
}


@pytest.mark.parametrize(("values", "words"), ODD.values(), ids=ODD)
def test_ids_that_are_odd_must_be_said(tmp_path, values, words):
    root = a_set(tmp_path, [encoded(Image.fromarray(values), "TIFF")])
    with pytest.raises(LabelError, match=f"which ids .* classes. Received: {words}"):
        opened(root)
    found = sorted(map(str, np.unique(values)), key=int)
    assert opened(root, void_ids=[]).class_names == tuple(found)
    assert opened(root, label_ids=found).class_names == tuple(found)
    if len(found) > 2:
        assert opened(root, void_ids=found[2:]).class_names == tuple(found[:2])


def test_palettes_of_each_file_alone_are_refused(tmp_path):
    """Black and white, of which each file's program has put another first."""
    masks = []
    for palette in ([0] * 3 + [255] * 3, [255] * 3 + [0] * 3):
        mask = Image.fromarray((CLASSES % 2).astype(np.uint8)).convert("P")
        mask.putdata((CLASSES % 2).ravel().tolist())
        mask.putpalette(palette)
        masks.append(encoded(mask))
    assert len(opened(a_set(tmp_path / "one", masks[:1] * 2))) == 2
    root = a_set(tmp_path, masks)
    with pytest.raises(
        LabelError, match="id 0 is .0, 0, 0. in .*0.png and .255.*1.png"
    ):
        opened(root)
    (root / "classes.txt").write_text("0 ground\n1 object\n")
    np.testing.assert_array_equal(opened(root).load(1)[1], CLASSES % 2)


def pages(*images):
    return encoded(images[0], "TIFF", save_all=True, append_images=images[1:])


def wide_colours():
    """An RGB PNG with 16 bits a channel: Pillow keeps the upper 8."""
    rows = np.repeat(CLASSES[..., None], 3, -1).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    whole = small_png(16, CLASSES)
    start = whole.index(b"IHDR") + 4
    head = whole[start : start + 8] + bytes([16, 2, 0, 0, 0])
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return whole[:8] + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in parts
    )


def seen_through():
    image = grey(0, 1).convert("RGBA")
    image.putalpha(MASK)
    return encoded(image)


REFUSED = {
    "jpeg": (encoded(MASK, "JPEG"), "without loss.*JPEG"),
    "lossy webp": (encoded(MASK, "WEBP", quality=80), "without loss.*WEBP"),
    "jpeg in tiff": (
        encoded(MASK, "TIFF", compression="jpeg"),
        "without loss",
    ),
    "pages": (pages(MASK, grey(0, 1)), "one image.*several"),
    "animation": (
        encoded(MASK, "GIF", save_all=True, append_images=[grey(0, 1)]),
        "one image.*several",
    ),
    "16-bit colours": (wide_colours(), "keep its ids"),
    "pgm of 20 levels": (b"P5 64 48 20\n" + CLASSES.tobytes(), "keep its ids"),
    "white is 0": (
        encoded(grey(0, 1, 2), "TIFF", tiffinfo={262: 0}),
        "plain which ids.*PhotometricInterpretation 0",
    ),
    "white is 0, compressed": (
        encoded(grey(0, 1), "TIFF", tiffinfo={262: 0}, compression="tiff_lzw"),
        "plain which ids",
    ),
    "transparent": (seen_through(), "one channel .* mode RGBA"),
    "floats": (
        encoded(Image.fromarray(CLASSES.astype(np.float32)), "TIFF"),
        "one channel .* mode F",
    ),
    "cmyk": (encoded(grey(0, 1).convert("CMYK"), "TIFF"), "mode CMYK"),
    "empty": (b"", "readable image.*empty"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "readable image.*git lfs pull",
    ),
    "huge": (
        small_png(8, CLASSES, claimed=(60_000, 9_000)),
        "readable image.*pixels",
    ),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_label_map_is_named(tmp_path, data, words):
    with pytest.raises(LabelError, match=f"{words}") as error:
        opened(a_set(tmp_path, [data]))
    assert "0.png" in str(error.value) and "\n" not in str(error.value)


def test_large_flat_areas_are_no_bombs():
    """25 megapixels of background in some kB, as of an aerial picture."""
    labels = np.zeros((5000, 5000), np.uint8)
    labels[2500] = 1
    found = decode_ids(encoded(Image.fromarray(labels)), "x.png").ids
    assert found.shape == (5000, 5000) and found.sum() == 5000


def test_overviews_beside_a_label_map_do_no_harm(tmp_path):
    data = pages(grey(0, 1), grey(0, 1).resize((16, 12), Image.NEAREST))
    assert opened(a_set(tmp_path, [data])).class_names == ("0", "1")


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    trace = tmp_path / "started"
    fake = tmp_path / "bin" / "gs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho 10.0\ntouch {trace}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("gs") == str(fake)
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n"
    with pytest.raises(LabelError, match="readable image"):
        opened(a_set(tmp_path, [text]))
    assert not trace.exists()


# One class


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ((0,), {}, "only id 0"),
        ((7,), {}, "only id 7"),
        (
            (1, 255),
            {"void_ids": [255]},
            "only id 1 beside void .255.*label_ids=1,255",
        ),
        (
            (0, 255),
            {"void_ids": [255]},
            "only id 0 beside void .255.*label_ids=0,255",
        ),
        ((0, 1), {"void_ids": [1]}, "only id 0 beside void .1"),
        ((255,), {}, "none beside void"),
        ((0, 1), {"label_ids": [0]}, "two different ids or more"),
        ((0, 1), {"label_ids": [0, 0]}, "two different ids"),
        ((0, 1), {"label_ids": [0, 1], "void_ids": [1]}, "none of them void"),
    ],
)
def test_one_class_is_refused(tmp_path, values, options, words):
    with pytest.raises(LabelError, match=words):
        opened(a_set(tmp_path, [grey(*values)]), **options)


def test_a_file_of_one_class_is_refused(tmp_path):
    root = a_set(tmp_path, [grey(0, 255)], classes="0 ground\n1 void\n")
    with pytest.raises(LabelError, match="two classes at least.*only 'ground'"):
        opened(root)
    (root / "classes.txt").write_text("0 a\n1 b\n2 c\n")
    with pytest.raises(LabelError, match="2 ids for 3 classes"):
        opened(root, label_ids=[0, 255])


@pytest.mark.parametrize("name", ["void_ids", "label_ids"])
@pytest.mark.parametrize("values", [["a"], ["1.5"], [2**40], [None]])
def test_lists_of_ids_are_whole_numbers(tmp_path, name, values):
    with pytest.raises(ValueError, match=f"`{name}` must be a list of whole numbers"):
        opened(tmp_path, **{name: values})


# Shades


def smooth():
    drawn = Image.new("L", (64, 48))
    drawn.paste(255, (16, 12, 48, 36))
    return drawn.rotate(20, Image.BICUBIC)


def disc():
    y, x = np.mgrid[:333, :444]
    inside = (x - 200) ** 2 + (y - 150) ** 2 < 9000
    return Image.fromarray(inside.astype(np.uint8) * 255)


SHADES = {
    "rotated": smooth(),
    "resized": disc().resize((64, 48), Image.BILINEAR),
    "jpeg": Image.open(io.BytesIO(encoded(smooth(), "JPEG", quality=70))),
    "four": grey(0, 80, 160, 240).filter(ImageFilter.GaussianBlur(0.7)),
    "a photograph": Image.fromarray(
        np.arange(64 * 48).reshape(48, 64).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("name", SHADES)
def test_shades_are_no_classes(tmp_path, name):
    root = a_set(tmp_path, [SHADES[name]])
    with pytest.raises(LabelError, match="shades.*without antialiasing"):
        opened(root)
    (root / "classes.txt").write_text("0 ground\n255 object\n")
    with pytest.raises(LabelError, match="smooth edges.*without antialiasing"):
        opened(root).load(0)


def test_many_small_classes_are_no_shades(tmp_path):
    """As in aerial pictures: background, void, and specks of 20 classes."""
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 60:] = 255
    labels[3, 2:62:3] = np.arange(1, 21)
    found = opened(a_set(tmp_path, [labels]))
    assert found.class_names == tuple(map(str, range(21)))


NOISE = {
    "both ends": {0: 5000, 1: 50, 2: 20, 253: 20, 254: 50, 255: 3000},
    "a small object": {0: 9700, 1: 50, 2: 20, 253: 20, 254: 50, 255: 100},
    "three greys": {0: 5000, 3: 10, 126: 9, 128: 2000, 133: 5, 255: 900},
}


@pytest.mark.parametrize("pixels", NOISE.values(), ids=NOISE)
def test_noise_beside_drawn_greys_is_no_class(pixels):
    for void_ids in (None, [], [255]):
        with pytest.raises(LabelError, match="shades.*without antialiasing"):
            table_of_found(pixels, void_ids, "masks")


IDS = {
    "first ids": {0: 5000, 1: 50, 2: 20, 255: 3000},
    "another void": {0: 5000, 1: 50, 250: 20, 255: 3000},
}


@pytest.mark.parametrize("pixels", IDS.values(), ids=IDS)
def test_ids_beside_void_are_classes(pixels):
    void_ids = [250] if 250 in pixels else None
    assert table_of_found(pixels, void_ids, "masks").names[:2] == ("0", "1")


@pytest.mark.parametrize(
    "large", [(1, 124, 157), (0, 124), (0, 157), (0, 179), (0, 255), (0, 124, 255)]
)
def test_small_classes_of_many_ids_are_no_shades(large):
    """As in COCO-Stuff: two classes or three hold most, and many others little."""
    rng = np.random.default_rng(0)
    pixels = {int(i): 50 for i in rng.choice(np.arange(2, 180), 60, replace=False)}
    pixels |= dict.fromkeys(large, 20_000)
    names = table_of_found(pixels, None, "stuff").names
    assert names == tuple(str(i) for i in sorted(pixels) if i != 255)


# Orientation


def with_exif(pixels, number, kind="PNG"):
    exif = Image.Exif()
    exif[0x0112] = number
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return encoded(Image.fromarray(pixels), kind, exif=exif, **options)


def turned_back(pixels, number):
    """Pixels that a viewer turns to these by an orientation."""
    inverse = {6: 8, 8: 6}.get(number, number)
    data = with_exif(pixels, inverse)
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def check_alignment(root, expected=CLASSES):
    _, labels = open_segmented("folders", root, "val").load(0)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("number", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_sizes_tell_how_a_label_map_lies(tmp_path, number, kind):
    image = with_exif(turned_back(IMAGE, number), number, kind)
    raw = turned_back(CLASSES, number)
    inverse = {6: 8, 8: 6}.get(number, number)
    labels = {
        "upright": CLASSES,
        "as the file": raw,
        "with the same EXIF": with_exif(raw, number),
        "in TIFF": with_exif(raw, number, "TIFF"),
        "upright, EXIF copied": with_exif(CLASSES, number),
    }
    for name, label in labels.items():
        check_alignment(a_set(tmp_path / name, [label], [image]))
    # The reverse: an image that is upright, a label map that its EXIF turns.
    label = with_exif(turned_back(CLASSES, inverse), inverse)
    check_alignment(a_set(tmp_path / "reverse", [label], [IMAGE]))


@pytest.mark.parametrize("number", range(2, 9))
@pytest.mark.parametrize("side", ["image", "label"])
def test_where_sizes_do_not_tell_both_are_named(tmp_path, number, side):
    pixels, classes = IMAGE[:, :48], np.ascontiguousarray(CLASSES[:, :48])
    if number < 5:
        pixels, classes = IMAGE, CLASSES
    pixels = np.ascontiguousarray(pixels)
    tagged = {"image": (with_exif(pixels, number), classes)}
    tagged["label"] = (pixels, with_exif(classes, number))
    image, label = tagged[side]
    root = a_set(tmp_path, [label], [image], classes="a\nb\nc\nd\n")
    with pytest.raises(LabelError) as error:
        opened(root).load(0)
    text = str(error.value)
    assert str(root / "val" / "0.png") in text
    assert str(root / "valannot" / "0.png") in text
    assert f" {number}" in text and "upright" in text
    # Where both say the same they belong together.
    both = [with_exif(turned_back(classes, number), number)]
    images = [with_exif(turned_back(pixels, number), number)]
    check_alignment(a_set(tmp_path / "both", both, images), classes)


# Lists


@pytest.mark.parametrize(
    "text",
    [
        "val/a b.png\tvalannot/a b.png\n",
        "val/a b.png,valannot/a b.png\n",
        '"val/a b.png","valannot/a b.png"\r\n',
        "\ufeffval/a b.png\tvalannot/a b.png\r\n",
        "# two columns\n\nval/a b.png , valannot/a b.png\n\n",
        "image,mask\nval/a b.png,valannot/a b.png\n",
        "id,mask,image\n7,valannot/a b.png,val/a b.png\n",
        "val/c.png valannot/c.png\n",
        "val/c.png   valannot/c.png",
        "val/c,d.png valannot/c,d.png\n",
    ],
)
def test_lists_as_people_write_them(tmp_path, text):
    for name in ("a b.png", "c.png", "c,d.png"):
        case.save(IMAGE, tmp_path / "val" / name)
        case.save(CLASSES, tmp_path / "valannot" / name)
    (tmp_path / "some.txt").write_text(text, newline="")
    data = open_segmented("list", tmp_path / "some.txt")
    assert len(data) == 1
    np.testing.assert_array_equal(data.load(0)[1], CLASSES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"val/0.png\n", "line 1 of .*some.txt"),
        (b"\n#\na.png b.png c.png\n", "line 3 of .*some.txt"),
        (b"a.png,\n", "line 1 of .*some.txt"),
        (b"a.png b.png\0", "must be a text file.*some.txt"),
        (b"", "images of this split"),
        (b"val valannot\n", "pairs without image"),
    ],
)
def test_lists_that_name_no_pairs(tmp_path, text, words):
    a_set(tmp_path, [CLASSES])
    (tmp_path / "some.txt").write_bytes(text)
    with pytest.raises(LabelError, match=words):
        open_segmented("list", tmp_path / "some.txt")


def test_one_of_several_files_is_taken(tmp_path):
    a_set(tmp_path, [CLASSES])
    for ending in ("jpg", "gif", "BMP", "webp"):
        case.save(ids(9, 8).astype(np.uint8), tmp_path / "valannot" / f"0.{ending}")
    np.testing.assert_array_equal(opened(tmp_path).load(0)[1], CLASSES)
    (tmp_path / "valannot" / "0.png").unlink()
    assert opened(tmp_path).class_names == ("8", "9")  # the BMP
    for ending in ("BMP", "gif", "webp"):
        (tmp_path / "valannot" / f"0.{ending}").unlink()
    with pytest.raises(LabelError, match="without loss.*0.jpg"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_only_files_are_label_maps(tmp_path, kind):
    case.save(IMAGE, tmp_path / "val" / "0.png")
    path = tmp_path / "valannot" / "0.png"
    path.parent.mkdir()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(LabelError, match="1 of 1 pairs without label map"):
        opened(tmp_path)


# tensorflow-datasets


class Masks(tfds.core.GeneratorBasedBuilder):
    """Four images with masks of two values."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="drawn"),
        tfds.core.BuilderConfig(name="named"),
    ]

    def _info(self):
        shape = {"shape": (None, None, 1), "encoding_format": "png"}
        mask = tfds.features.Image(**shape)
        if self.builder_config.name == "named":
            names = ["ground", "object", "sky"]
            mask = tfds.features.LabeledImage(labels=names, **shape)
        features = {"image": tfds.features.Image(), "segmentation_mask": mask}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        values = (0, 255) if self.builder_config.name == "drawn" else (0, 2)
        for index in range(4):
            mask = ids(*values)[..., None].astype(np.uint8)
            yield index, {"image": IMAGE, "segmentation_mask": mask}


def test_masks_of_prepared_sets(tmp_path):
    for config in ("drawn", "named"):
        Masks(data_dir=tmp_path, config=config).download_and_prepare()
    with pytest.raises(LabelError, match="what 255 is in tfds:masks/drawn .*_ids=0"):
        open_segmented("tfds:masks/drawn", tmp_path, "test")
    data = open_segmented("tfds:masks/drawn", tmp_path, "test", label_ids=[0, 255])
    np.testing.assert_array_equal(data.load(3)[1], CLASSES % 2)
    named = open_segmented("tfds:masks/named", tmp_path, "test")
    assert named.class_names == ("ground", "object", "sky")
    np.testing.assert_array_equal(named.load(0)[1], ids(0, 2))


def test_masks_in_the_folders_of_a_public_set(tmp_path):
    root = case.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    for path in (root / "SegmentationClass").iterdir():
        case.save(ids(0, 255).astype(np.uint8), path)
    data = open_segmented("voc", tmp_path, "val", label_ids=[0, 255])
    assert data.class_names == ("0", "255")
    (tmp_path / "two.txt").write_text("ground\nobject\n")
    options = {"label_ids": [0, 255], "class_file": tmp_path / "two.txt"}
    data = open_segmented("voc", tmp_path, "val", **options)
    assert data.class_names == ("ground", "object")
