"""Small image files of every format, whole and damaged, to try decoders with.

    for name, data in image_files(np.random.default_rng(0)):  # without an end
        ...

Damage that keeps a file's frame (sizes and flags in its header, with the checksums set
right) reaches further into a decoder than flipped bytes, so every format has its own.
"""

import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image

# Values at which sizes and counts go wrong.
_EDGES = (0, 1, 2, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**16)
_EDGES += (2**24 - 1, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1)


def valid_files(rng, edge=24):
    """Whole files.

    Args:
        rng: numpy Generator.
        edge: About the images' edge in pixels.

    Returns:
        Dict of name, such as "webp_animated.webp", to bytes.
    """
    height, width = (int(x) for x in rng.integers(edge // 2, edge + 1, 2))
    pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[height // 2 :] = pixels[0, 0]
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    palette = rgb.quantize(16)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.transpose(0), rgb.rotate(90)]}
    clear = {"save_all": True, "append_images": [rgba.rotate(180)], "lossless": True}
    cases = {
        "rgb.jpg": (rgb, {}),
        "grey.jpg": (grey, {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "upright.jpg": (rgb, {"exif": exif}),
        "rgb.png": (rgb, {}),
        "rgba.png": (rgba, {"exif": exif}),
        "grey_alpha.png": (rgba.convert("LA"), {}),
        "palette.png": (palette, {"transparency": 3}),
        "bits.png": (grey.convert("1"), {}),
        "deep.png": (deep, {}),
        "animated.png": (rgb, frames),
        "still.gif": (palette, {}),
        "clear.gif": (palette, {"transparency": 3}),
        "animated.gif": (rgb, frames),
        "rgb.bmp": (rgb, {}),
        "rgba.bmp": (rgba, {}),
        "palette.bmp": (palette, {}),
        "bits.bmp": (grey.convert("1"), {}),
        "lossy.webp": (rgb, {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "alpha.webp": (rgba, {"exif": exif}),
        "animated.webp": (rgb, frames),
        "animated_lossless.webp": (rgb, {**frames, "lossless": True}),
        "animated_alpha.webp": (rgba, clear),
        "rgb.tif": (rgb, {}),
        "deep.tif": (deep, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tif": (rgba, {"compression": "tiff_adobe_deflate"}),
        "rgb.avif": (rgb, {"speed": 10}),
        "rgb.jp2": (rgb, {}),
        "rgb.ppm": (rgb, {}),
        "rgb.ico": (rgba, {"format": "ICO"}),
        "rgb.tga": (rgb, {"format": "TGA"}),
    }
    return {name: _encoded(name, *case) for name, case in cases.items()}


def mutated(rng, data, other=b""):
    """A file with one to three kinds of damage.

    Args:
        rng: numpy Generator.
        data: Bytes of a file.
        other: Another file, for splices.
    """
    for _ in range(int(rng.integers(1, 4))):
        ways = (_fields, _fields, _flipped, _cut, _spliced, _repeated)
        data = ways[int(rng.integers(len(ways)))](rng, data, other)
        if not data:
            break
    return data


def image_files(rng, formats=None):
    """Endlessly (name, bytes), a tenth of them whole.

    Args:
        rng: numpy Generator.
        formats: Endings to keep, such as (".webp", ".gif"); all of them if None.
    """
    while True:
        whole = valid_files(rng)
        names = [n for n in whole if formats is None or n.endswith(tuple(formats))]
        for name in itertools.chain.from_iterable([names] * 20):
            if rng.random() < 0.1:
                yield name, whole[name]
            else:
                other = whole[names[int(rng.integers(len(names)))]]
                yield name, mutated(rng, whole[name], other)


def _encoded(name, image, options):
    options = dict(options)
    kinds = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    ending = name.rpartition(".")[2]
    kind = options.pop("format", kinds.get(ending, ending.upper()))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _number(rng, size):
    """An awkward whole number of so many bytes."""
    kind = rng.random()
    if kind < 0.6:
        value = _EDGES[int(rng.integers(len(_EDGES)))]
    elif kind < 0.8:
        value = int(rng.integers(0, 64))
    else:
        value = int(rng.integers(0, 2**32))
    return value % 256**size


def _fields(rng, data, other):
    """Header fields, chunk names, flags and sizes of the format."""
    if data.startswith(b"\x89PNG"):
        return _png_fields(rng, data)
    places = (_riff_places if data.startswith(b"RIFF") else _places)(data)
    if not places:
        return _flipped(rng, data, other)
    data = bytearray(data)
    place, size, order = places[int(rng.integers(len(places)))]
    if place + size <= len(data):
        data[place : place + size] = _number(rng, size).to_bytes(size, order)
    return bytes(data)


def _places(data):
    """(place, bytes, byte order) of what a format's header holds."""
    if data.startswith(b"GIF"):
        start = 13 + (3 * 2 ** (data[10] % 8 + 1) if data[10:11] >= b"\x80" else 0)
        image = data.find(b",", start)
        found = [(6, 2), (8, 2), (10, 1), (11, 1), (start, 1), (start + 2, 1)]
        found += [(image + 1 + 2 * i, 2) for i in range(4)]
        found += [(image + 9, 1), (image + 10, 1), (image + 11, 1)]
        return [(*pair, "little") for pair in found]
    if data.startswith(b"BM"):
        found = [(2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]
        found += [(30, 4), (34, 4), (46, 4), (50, 4)]
        return [(*pair, "little") for pair in found]
    if data.startswith(b"\xff\xd8"):
        found, place = [], 2
        while place + 4 <= len(data) and data[place] == 0xFF:
            kind = data[place + 1]
            found += [(place + 1, 1), (place + 2, 2)]
            if 0xC0 <= kind <= 0xCF or kind == 0xDA:
                found += [(place + 4 + i, 1) for i in (0, 5, 6, 7)]
                found += [(place + 5, 2), (place + 7, 2)]
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        return [(*pair, "big") for pair in found]
    return [(i, s, o) for i in range(64) for s in (1, 2, 4) for o in ("little", "big")]


def _riff_places(data):
    """Of WebP: names, sizes, flags, canvas and frame of every chunk."""
    found, place = [(4, 4), (8, 4)], 12
    while place + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[place : place + 8])
        found += [(place, 4), (place + 4, 4), (place + 4, 1)]
        body = place + 8
        if name == b"VP8X":
            found += [(body, 1)] * 4 + [(body + 4, 3), (body + 7, 3)]
        elif name == b"ANMF":
            found += [(body + 3 * i, 3) for i in range(5)] + [(body + 15, 1)]
            found += [(body + 16, 4), (body + 20, 4), (body + 24, 4)]
        else:
            found += [(body + i, 1) for i in range(10)] + [(body + 6, 2), (body + 8, 2)]
        place = body + size + size % 2
    return [(*pair, "little") for pair in found]


def _png_fields(rng, data):
    """A field of the header, or a chunk's name, size, doubling or removal."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        chunks.append([name, data[place + 8 : place + 8 + size], None])
        place += 12 + size
    if not chunks:
        return data
    chosen = chunks[int(rng.integers(len(chunks)))]
    way = rng.random()
    if way < 0.5 and len(chunks[0][1]) == 13:
        at, size = [(0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (12, 1)][rng.integers(6)]
        header = bytearray(chunks[0][1])
        header[at : at + size] = _number(rng, size).to_bytes(size, "big")
        chunks[0][1] = bytes(header)
    elif way < 0.6:
        names = (b"IDAT", b"PLTE", b"tRNS", b"IEND", b"fdAT", b"acTL", b"zTXt", b"eXIf")
        chosen[0] = names[int(rng.integers(len(names)))]
    elif way < 0.7:
        chosen[2] = _number(rng, 4)
    elif way < 0.8:
        chunks.insert(int(rng.integers(len(chunks))), chosen)
    elif way < 0.9:
        chunks.remove(chosen)
    elif chosen[1]:
        chosen[1] = _flipped(rng, chosen[1], b"")
    return data[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _png_chunk(name, body, size=None):
    size = len(body) if size is None else size
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", size) + name + body + checksum


def _flipped(rng, data, other):
    data = np.frombuffer(data, np.uint8).copy()
    # Headers are hit as often as bodies.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 64)
    places = rng.integers(0, reach, int(rng.integers(1, 9)))
    data[places] = rng.integers(0, 256, len(places), dtype=np.uint8)
    return data.tobytes()


def _cut(rng, data, other):
    return data[: int(rng.integers(0, len(data) + 1))]


def _spliced(rng, data, other):
    if not other:
        return data
    head, tail = rng.integers(0, len(data) + 1), rng.integers(0, len(other) + 1)
    return data[: int(head)] + other[int(tail) :]


def _repeated(rng, data, other):
    """A piece of it once more, or many times."""
    first, last = sorted(int(x) for x in rng.integers(0, len(data) + 1, 2))
    times = int(rng.choice([1, 2, 50]))
    return data[:last] + data[first:last] * times + data[last:]
