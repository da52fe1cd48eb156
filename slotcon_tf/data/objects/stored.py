"""Sets of tensorflow-datasets with an image and `objects`, the layout of COCO there."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from slotcon_tf.data.builders import builder_identity, split_size
from slotcon_tf.data.labelled.decoding import LabelError, decode_labelled
from slotcon_tf.data.objects.annotation import Record, StoredSet
from slotcon_tf.images.decoding import open_image
from slotcon_tf.images.orientation import orientation_of
from slotcon_tf.images.pixels import PixelWatch

MASKS = ("segmentation", "mask", "masks")  # what sets call those of their objects
_DECIMALS = 3  # of a pixel, which float32 shares of an image's edges keep


class _Encoded(tfds.decode.SkipDecoding):
    """Leaves masks as they are; SkipDecoding warns of itself below a sequence."""

    @property
    def dtype(self):
        info = self.feature.get_serialized_info()
        return tf.nest.map_structure(lambda one: one.tf_dtype, info)


def read_builder(builder: Any, split: str) -> StoredSet:
    """Reads a split of a tensorflow-datasets set; it stays in memory, still encoded.

    `objects` is a sequence of `bbox`, `label` and, where the set has them, `is_crowd`,
    `area` and a mask: an image as large as the set's, not 0 inside the object.

    Args:
        builder: A prepared one.
        split: Its images, or a slice.

    Raises:
        LabelError: If it has no such objects.

    Example:
        >>> from slotcon_tf.data.scenes import SceneObjects, scenes_builder
        >>> builder = scenes_builder(None, SceneObjects)  # doctest: +SKIP
        >>> len(read_builder(builder, "test").records)  # doctest: +SKIP
        200
    """
    split_size(builder, split)  # which names the splits there are
    name = builder.info.full_name
    features = dict(builder.info.features)
    objects = dict(getattr(features.get("objects"), "feature", None) or {})
    names = getattr(objects.get("label"), "names", None)
    # As shares: ymin, xmin, ymax, xmax; older versions have no others.
    layout = getattr(objects.get("bbox"), "bbox_format", None)
    shares = layout is None or layout.name == "REL_YXYX"
    is_box = isinstance(objects.get("bbox"), tfds.features.BBoxFeature)
    if not names or not is_box or not shares:
        has = ", ".join([*sorted(features), *(f"objects.{key}" for key in objects)])
        raise LabelError(
            "A tensorflow-datasets set of objects must have 'objects' with 'bbox', a "
            "BBoxFeature of shares, and 'label', a ClassLabel. Received: "
            f"{name} with {has}. Name another set, or write this one "
            "as COCO's JSON (dataset=coco)."
        )
    mask = next((m for m in MASKS if m in objects), None)
    decoders: dict[str, Any] = {"image": _Encoded()}
    if mask:
        decoders["objects"] = {mask: _Encoded()}
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=decoders,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    records, encoded = [], []
    for number, example in enumerate(examples.as_numpy_iterator()):
        encoded.append(example["image"])
        records.append(_record(f"{name} ({split}) {number}", number, example, mask))
    watch = PixelWatch(name)

    def read(index, pixel_range):
        path = records[index].file_name
        return decode_labelled(encoded[index], path, watch, pixel_range)

    def identify(_):
        return builder_identity(builder, split)

    return StoredSet(records, dict(enumerate(names)), read, identify)


def _record(name, number, example, mask):
    image, objects = open_image(example["image"]), example["objects"]
    width, height = image.size
    if orientation_of(image, example["image"]) > 4:
        width, height = height, width
    size = np.array([height, width, height, width])
    top, left, bottom, right = (objects["bbox"].astype(float) * size).T
    boxes = np.stack([left, top, right - left, bottom - top], axis=1).round(_DECIMALS)
    masks = list(objects[mask]) if mask else None
    if masks and open_image(masks[0], flat=True).size != image.size:
        raise LabelError(
            "The mask of an object must be as large as its image. Received: "
            f"{name}, objects.{mask}."
        )
    return Record.of_objects(
        number + 1,
        name,
        height,
        width,
        boxes,
        objects["label"],
        skipped=(boxes[:, 2:] <= 0).any(1),
        crowd=objects.get("is_crowd"),
        areas=objects.get("area"),
        outlines=masks,
    )
