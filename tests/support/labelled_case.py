"""Small labelled sets in the layouts of the public ones.

Every image is quarters of plain colours, and its label map says which: class c has the
colour `COLORS[c]`.
"""

import json

import numpy as np
from PIL import Image

COLORS = np.array(
    [[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]], np.uint8
)
NUM_CLASSES = len(COLORS)


def scene(seed, height=48, width=64):
    """An image uint8 (height, width, 3) and its classes uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    quarters = rng.permutation(NUM_CLASSES).reshape(2, 2).astype(np.uint8)
    classes = quarters.repeat(height // 2, 0).repeat(width // 2, 1)
    noise = rng.integers(-15, 16, (height, width, 3))
    image = (COLORS[classes].astype(int) + noise).clip(0, 255).astype(np.uint8)
    return image, classes


def save(pixels, path, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P")
        image.putpalette(palette)
        image.frombytes(pixels.tobytes())
    image.save(path)


def folders(root, splits=(("train", 6), ("val", 4)), ids=None):
    """`SPLIT/` and `SPLITannot/`, with classes.txt."""
    for split, count in splits:
        for index in range(count):
            image, classes = scene([len(split), index])
            save(image, root / split / f"{index}.png")
            labels = classes if ids is None else np.array(ids, np.uint8)[classes]
            save(labels, root / f"{split}annot" / f"{index}.png")
    names = "\n".join(
        f"{i} {n}" for i, n in enumerate(["red", "green", "blue", "yellow"])
    )
    (root / "classes.txt").write_text(f"# id name\n{names}\n9\tVoid\t0\n")
    return root


def voc(root, train=3, val=2):
    base = root / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    number = 0
    for split, count in (("train", train), ("val", val), ("aug", 2)):
        names = []
        for _ in range(count):
            names.append(f"2012_{number:06d}")
            image, classes = scene(number)
            classes = np.where(np.arange(48)[:, None] == 24, 255, classes + 1)
            kind = "Aug" if split == "aug" else ""
            save(image, base / "JPEGImages" / f"{names[-1]}.jpg")
            save(
                classes.astype(np.uint8),
                base / f"SegmentationClass{kind}" / f"{names[-1]}.png",
                palette=list(range(256)) * 3,
            )
            number += 1
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def cityscapes(root):
    ids = np.array([7, 11, 23, 4], np.uint8)  # road, building, sky, and one void
    for split in ("train", "val"):
        for index in range(2):
            image, classes = scene(index)
            stem = f"ulm_{index:06d}_000019"
            city = root / "leftImg8bit" / split / "ulm"
            save(image, city / f"{stem}_leftImg8bit.png")
            fine = root / "gtFine" / split / "ulm"
            save(ids[classes], fine / f"{stem}_gtFine_labelIds.png")
    return root


def ade20k(root):
    base = root / "ADEChallengeData2016"
    for folder in ("training", "validation"):
        for index in range(2):
            image, classes = scene(index)
            save(image, base / "images" / folder / f"ADE_{index}.jpg")
            save(classes, base / "annotations" / folder / f"ADE_{index}.png")
    return root


def coco(root, stuff=True):
    """Panoptic annotations, and stuffthingmaps too if asked."""
    categories = [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 3, "name": "car", "supercategory": "vehicle"},
        {"id": 187, "name": "sky-other-merged", "supercategory": "sky"},
        {"id": 193, "name": "grass-merged", "supercategory": "plant"},
    ]
    # Ids of stuffthingmaps: person, car, sky-other, grass.
    things = np.array([0, 2, 156, 123], np.uint8)
    images, annotations = [], []
    for index in range(2):
        image, classes = scene(index)
        name = f"{index:012d}"
        save(image, root / "val2017" / f"{name}.jpg")
        if stuff:
            folder = root / "stuffthingmaps" / "val2017"
            save(things[classes], folder / f"{name}.png")
        numbers = (classes.astype(int) + 1) * 70_000
        numbers[:2] = 0  # no segment
        rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
        folder = root / "annotations" / "panoptic_val2017"
        save(rgb.astype(np.uint8), folder / f"{name}.png")
        images.append({"id": index, "file_name": f"{name}.jpg"})
        segments = [
            {"id": (c + 1) * 70_000, "category_id": categories[c]["id"]}
            for c in range(4)
        ]
        annotations.append(
            {"image_id": index, "file_name": f"{name}.png", "segments_info": segments}
        )
    text = json.dumps(
        {"images": images, "annotations": annotations, "categories": categories}
    )
    (root / "annotations" / "panoptic_val2017.json").write_text(text)
    return root


def class_folders(root, train=8, val=4):
    """`SPLIT/CLASS/*`: images of one colour each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number, name in enumerate(("red", "green", "blue")):
            for index in range(count):
                pixels = COLORS[number].astype(int)
                noise = rng.integers(-30, 31, (40, 50, 3))
                image = (pixels + noise).clip(0, 255).astype(np.uint8)
                save(image, root / split / name / f"{index}.png")
    return root
