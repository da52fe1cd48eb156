"""Label sets, valid and mutated, from a random generator: what a soak feeds readers.

Each maker takes a numpy.random.Generator and returns the name of what it did and the
bytes of a file. `read` puts such a file into a small set of its kind and reads that:
a data set comes of it, or one of `REFUSALS`.

    rng = np.random.default_rng(0)
    name, data = panoptic_json(rng)
    read("panoptic_json", data, folder)
"""

import io
import json
import pathlib

import numpy as np
from PIL import Image

from slotcon_tf.data.labelled import LabelError, open_segmented

REFUSALS = (LabelError, FileNotFoundError)
SIZE = (24, 32)  # height, width of every image
_VALUES = (
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**64, 10**400, 0.5, float("nan")),
    *(float("inf"), "", "1", "../x.png", "/etc/hostname", "C:\\x.png", "\ud800"),
    *("a\0b", "x" * 5000, [], {}, [[]], [None], {"id": 1}, [{"id": 1}]),
)
_LINES = (
    *("", "#", "0", "0 a", "1\tb\t0.5", "2,c,1,2,3", '"3","d, e"', "4;f", "5: g"),
    *("-1 ignore", "255 object", "300 x", f"{2**40} y", f"{10**400} z", "sky", "a,b"),
    *("__ignore__", "_background_", "void", "id,name", "name", "\u00b2 two", "\ufeff"),
    *("x" * 200_000, '"open', "1 \x01", "{", "[1]", "0\x0b1", "road\t7", "tree\t9"),
)


def panoptic(rng):
    """A whole panoptic JSON as Python's values, for the images of `read`."""
    categories = [
        {"id": i, "name": f"class {i}", "supercategory": "person"} for i in (1, 2, 9)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(2)]
    annotations = []
    for image in images:
        numbers = rng.permutation([1, 2, 9])[: rng.integers(2, 4)].tolist()
        segments = [{"id": i + 1, "category_id": n} for i, n in enumerate(numbers)]
        name = f"{image['id']}.png"
        annotations.append(
            {"image_id": image["id"], "file_name": name, "segments_info": segments}
        )
    return {"images": images, "annotations": annotations, "categories": categories}


def panoptic_json(rng):
    content = panoptic(rng)
    kind = str(rng.choice(["whole", "values", "bytes", "encoding", "nesting"]))
    if kind == "values":
        for _ in range(rng.integers(1, 4)):
            content = _changed(content, rng)
    data = json.dumps(content, ensure_ascii=bool(rng.integers(2)))
    if kind == "nesting":
        depth = int(rng.choice([10, 2000, 200_000]))
        data = data.replace(str(rng.choice(["1", "9", '"id"', "["])), "[" * depth, 1)
    encoding = "utf-8"
    if kind == "encoding":
        encoding = str(rng.choice(["utf-8-sig", "utf-16", "utf-32", "utf-16-be"]))
    data = data.encode(encoding, "surrogatepass")
    return kind, damaged(data, rng) if kind == "bytes" else data


def class_file(rng):
    kind = str(rng.choice(["numbered", "names", "mixed", "bytes", "encoding"]))
    count = int(rng.choice([1, 2, 3, 5, 300]))
    lines = [f"class {i}" for i in range(count)]
    if kind != "names":
        mark = str(rng.choice([" ", "\t", ",", ";", ": "]))
        lines = [f"{i}{mark}{line}" for i, line in enumerate(lines)]
    if kind == "mixed":
        for line in rng.choice(np.array(_LINES, object), rng.integers(1, 4)):
            lines.insert(rng.integers(len(lines) + 1), line)
    text = str(rng.choice(["\n", "\r\n", "\r"])).join(lines)
    encoding = "utf-8"
    if kind == "encoding":
        encoding = str(rng.choice(["utf-8-sig", "utf-16", "latin-1", "utf-32"]))
    data = text.encode(encoding, "replace")
    return kind, damaged(data, rng) if kind == "bytes" else data


def label_png(rng):
    """A label map, most often a PNG, of ids or of what is none."""
    kind = str(rng.choice(["ids", "greys", "two", "modes", "formats", "size", "bytes"]))
    size = tuple(rng.integers(1, 40, 2)) if kind == "size" else SIZE
    ids = rng.integers(0, 4, size).astype(np.uint8)
    if kind == "greys":
        ids = rng.integers(0, 256, size).astype(np.uint8)
    if kind == "two":
        ids = ids % 2 * np.uint8(255)
    image = Image.fromarray(ids)
    if kind == "modes":
        modes = ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "CMYK"]
        image = image.convert(str(rng.choice(modes)))
    kinds = ["PNG"]
    if kind in ("formats", "modes", "bytes"):
        kinds = ["PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG", "PPM", "EPS"]
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 10))
    out = io.BytesIO()
    try:
        image.save(out, str(rng.choice(kinds)), exif=exif)
    except (OSError, ValueError):  # a mode that a format lacks
        return label_png(rng)
    data = out.getvalue()
    return kind, damaged(data, rng) if kind == "bytes" else data


MAKERS = {
    "panoptic_json": panoptic_json,
    "class_file": class_file,
    "label_png": label_png,
}


def damaged(data, rng):
    """Bytes cut, changed, doubled or filled with others."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if not data:
            break
        start = int(rng.integers(len(data)))
        length = int(rng.integers(1, 9))
        how = rng.integers(5)
        if how == 0:
            del data[start:]
        elif how == 1:
            data[start : start + length] = rng.bytes(length)
        elif how == 2:
            data[start:start] = data[start : start + 40]
        elif how == 3:
            data[start] ^= 1 << rng.integers(8)
        else:
            del data[start : start + length]
    return bytes(data)


def read(kind, data, folder):
    """Reads a set one of whose files is `data`, all of it.

    Args:
        kind: A key of `MAKERS`.
        data: Bytes of its file.
        folder: Where the set is written; what is in it is written anew.

    Returns:
        The number of images that were read.

    Raises:
        LabelError, FileNotFoundError: If it is refused.
    """
    folder = pathlib.Path(folder)
    image, ids = Image.new("RGB", SIZE[::-1], (90, 60, 30)), np.zeros(SIZE, np.uint8)
    ids[:, 8:], ids[:, 16:] = 1, 2
    if kind == "panoptic_json":
        annotations = folder / "annotations"
        for below in (folder / "val2017", annotations / "panoptic_val2017"):
            below.mkdir(parents=True, exist_ok=True)
        segments = np.stack([ids, ids * 0, ids * 0], axis=-1)
        for number in range(2):
            image.save(folder / "val2017" / f"{number}.jpg")
            path = annotations / "panoptic_val2017" / f"{number}.png"
            Image.fromarray(segments).save(path)
        (annotations / "panoptic_val2017.json").write_bytes(data)
        return sum(1 for _ in open_segmented("coco_panoptic", folder, "val"))
    for below in ("val", "valannot"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    image.save(folder / "val" / "x.png")
    label = folder / "valannot" / "x.png"
    classes = folder / "classes.txt"
    classes.unlink(missing_ok=True)
    if kind == "class_file":
        classes.write_bytes(data)
        Image.fromarray(ids).save(label)
    else:
        label.write_bytes(data)
    return sum(1 for _ in open_segmented("folders", folder, "val"))


def _changed(content, rng):
    """A copy with one value, somewhere, replaced, deleted or doubled."""
    copy = json.loads(json.dumps(content))
    spots = list(_spots(copy))
    holder, key = spots[rng.integers(len(spots))]
    how = rng.integers(4)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = _VALUES[rng.integers(len(_VALUES))]
    return copy


def _spots(value):
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], list | dict):
            yield from _spots(value[key])
