"""detectron2's recorded detector: weights and images from seeds, names mapped.

`tests/golden/detection` was recorded by running detectron2 (commit 02b5c4e2, CPU) with
the SlotCon authors' configuration, its casts to float32 widened to float64. Its
samplers draw evenly spaced candidates in place of random ones (`even_choice`).
"""

import functools
import json
import pathlib

import numpy as np
import tensorflow as tf

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.names import detector_entries
from slotcon_tf.encoders.resnet import backbone
from tests.support.golden_case import draw

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "detection"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = {
    "channels": 16,
    "units": 32,
    "proposals": (400, 250),
    "test_proposals": (200, 80),
    "anchors_per_image": 32,
    "regions_per_image": 32,
    "max_detections": 30,
}


@functools.cache
def recorded(name):
    """Arrays of a file, by name."""
    return dict(np.load(FOLDER / f"{name}.npz"))


@functools.cache
def described(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def even_choice(candidates, wanted, most):
    """Candidates (k * M) // wanted of M, in their order: what golden numbers took."""
    del most
    total = tf.math.count_nonzero(candidates, dtype=tf.int32)
    place = tf.cumsum(tf.cast(candidates, tf.int32), exclusive=True)  # among them
    # Place j is taken if a whole k has j <= k * total / wanted < j + 1.
    k = -(-place * wanted // tf.maximum(total, 1))
    hit = (k * total // tf.maximum(wanted, 1) == place) & (k < wanted)
    return candidates & hit


def evenly(image):
    """The recorder's choices of anchors and of regions."""
    del image
    return ((even_choice, even_choice),) * 2


def initial_weights():
    """The recorder's values, float32, by detectron2's names."""
    case = described("det")
    shapes, one = case["shapes"], np.float32
    norms = {name[: -len(".running_mean")] for name in shapes if "running_mean" in name}
    values = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        z = draw(case["seed"], name, shape)
        if leaf in ("running_mean", "running_var"):
            value = np.full(shape, leaf == "running_var", np.float32)
        elif module in norms:
            value = one(0.1) * z + (one(1) if leaf == "weight" else one(0))
        elif leaf == "bias":
            value = one(0.05) * z
        else:
            value = z * np.sqrt(one(2) / one(np.prod(shape[1:])))
        if name.endswith("conv3.norm.weight"):
            value = value * one(0.25)
        if name.endswith("anchor_deltas.weight"):
            value = value * one(0.15)
        values[name] = value
    return values


def recorded_model(**settings):
    """The detector with its first weights, and its entries by detectron2's names."""
    encoder = backbone("resnet50", width=8)
    model = MaskRCNN(encoder, class_names="abcde", **{**SIZES, **settings})
    entries, values = detector_entries(model), initial_weights()
    assert set(entries) == set(values)
    for name, value in values.items():
        assert entries[name].shape == value.shape, name
        entries[name].assign(value)
    return model, entries


def image(name, height, width):
    """uint8 (3, height, width)."""
    seed = described("det")["seed"]
    fine = draw(seed, f"{name}_fine", (3, height, width))
    coarse = draw(seed, f"{name}_coarse", (3, -(-height // 16), -(-width // 16)))
    coarse = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return np.clip(np.rint(118 + 28 * fine + 40 * coarse), 0, 255).astype(np.uint8)


def padded(images, dtype="float64"):
    """Normalised, (N, H, W, 3), with zeros up to multiples of 32."""
    height, width = (-(-max(x.shape[a] for x in images) // 32) * 32 for a in (1, 2))
    batch = np.zeros((len(images), height, width, 3))
    for place, one in zip(batch, images, strict=True):
        pixels = (one.transpose(1, 2, 0) - np.array(MEAN)) / np.array(STD)
        place[: one.shape[1], : one.shape[2]] = pixels
    return tf.constant(batch, dtype)


def edges_of(polygons, length):
    """Starts, ends (length, 2) and parts (length,) of an object's polygons."""
    starts, ends = np.zeros((2, length, 2))
    parts, first = np.zeros(length, np.int32), 0
    for part, polygon in enumerate(polygons):
        corners = np.reshape(polygon, (-1, 2))
        here = slice(first, first + len(corners))
        starts[here], ends[here] = corners, np.roll(corners, -1, axis=0)
        parts[here], first = part, here.stop
    return starts, ends, parts


def training_batch(step, dtype="float64", objects=7, edges=40):
    """The two images of a recorded step, as `MaskRCNN.compute_losses` takes them."""
    items = described("det")["steps"][step]
    images = []
    for number, item in enumerate(items):
        one = image(f"step{step}_image{number}", *item["size_hw"])
        assert one.sum(dtype=np.int64) == item["image_sum"]
        images.append(one)
    batch = {
        "images": padded(images, dtype),
        "sizes": np.array([item["size_hw"] for item in items], np.int32),
        "boxes": np.zeros((2, objects, 4)),
        "classes": np.zeros((2, objects), np.int32),
        "valid": np.zeros((2, objects), bool),
        "starts": np.zeros((2, objects, edges, 2)),
        "ends": np.zeros((2, objects, edges, 2)),
        "parts": np.zeros((2, objects, edges), np.int32),
    }
    for number, item in enumerate(items):
        count = len(item["boxes"])
        batch["boxes"][number, :count] = item["boxes"]
        batch["classes"][number, :count] = item["classes"]
        batch["valid"][number, :count] = True
        for place, polygons in enumerate(item["polygons"]):
            found = edges_of(polygons, edges)
            for name, value in zip(("starts", "ends", "parts"), found, strict=True):
                batch[name][number, place] = value
    return {name: tf.convert_to_tensor(value) for name, value in batch.items()}
