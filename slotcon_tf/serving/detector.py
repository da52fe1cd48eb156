"""A detector behind a signature: image files in, objects out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from slotcon_tf.detection.mask_rcnn import MaskRCNN
from slotcon_tf.detection.network import MASK_SIZE
from slotcon_tf.detection.pyramid import MULTIPLE
from slotcon_tf.detection.resize import detector_edges
from slotcon_tf.files import to_disk, written_aside
from slotcon_tf.images.squares import resized_in_graph
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.serving.archive import (
    MODEL_NAME,
    archive_of,
    publish,
    write_archive,
)
from slotcon_tf.serving.decoding import OK, decode_batch
from slotcon_tf.serving.detector_folding import fold_detector
from slotcon_tf.serving.model_card import input_contract, write_card
from slotcon_tf.serving.signatures import ServingOptions
from slotcon_tf.serving.verification import near, noise_pixels, verify
from slotcon_tf.serving.warmup import write_warmup
from slotcon_tf.types import Tensor

SIGNATURE = "detect"
LABELS_FILE = "assets.extra/labels.txt"  # a class to a line
_WARM_EDGE = 64  # pixels; every image becomes as large as the model wants it


@dataclasses.dataclass(frozen=True)
class DetectorOptions:
    """Sizes and limits of a detector that is served.

    Attributes:
        short_edge: Pixels that the shortest edge of an image becomes; None: as the
            model was measured.
        long_edge: Pixels that its longest edge becomes at most; None: the same.
        max_pixels: Images with more are not decoded.

    Example:
        >>> DetectorOptions(short_edge=640).long_edge is None
        True
    """

    short_edge: int | None = None
    long_edge: int | None = None
    max_pixels: int = ServingOptions.max_pixels


class ServedDetector(tf.Module):
    """A detector behind its signature `detect`.

    Args:
        model: `MaskRCNN`; it is folded, and later weights do not count.
        precision: Of the encoder, "float32" or "bfloat16".
        options: `DetectorOptions`.

    Raises:
        ValueError: If the longest edge is below the shortest.

    Example:
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "max_detections": 3}
        >>> names = ("cat", "dog")
        >>> model = MaskRCNN(backbone("resnet10", width=8), class_names=names, **sizes)
        >>> list(ServedDetector(model).signatures())
        ['detect']
    """

    def __init__(
        self,
        model: MaskRCNN,
        precision: str = "float32",
        options: DetectorOptions = DetectorOptions(),  # noqa: B008  frozen
    ) -> None:
        super().__init__()
        self.detector = fold_detector(model, precision)
        self.statistics = statistics_of(model)
        edges = detector_edges(model, options.short_edge, options.long_edge)
        self.short_edge, self.long_edge = edges
        self.max_pixels = options.max_pixels

    def signatures(self) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
        """Dict of name to (function, its input signature)."""
        data = tf.TensorSpec([None], tf.string, name="image_bytes")
        return {SIGNATURE: (self.detect, [data])}

    def detect(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, string (N,) -> the D best objects of each, `number` of them there.

        `boxes` (N, D, 4) as x1, y1, x2, y2 in the image's own pixels, upright, `scores`
        (N, D), `classes` int32 (N, D) and `names` (N, D), of a detector with masks
        `masks` (N, D, 28, 28), probabilities within each box; `number` int32 (N,),
        `size` int32 (N, 2), the image's height and width, `ok` and `reason`. What is
        not there is zeros. Every image is looked at alone, so that no answer hangs on
        what else is in a batch.
        """
        return tf.map_fn(
            self._one,
            image_bytes,
            parallel_iterations=1,
            fn_output_signature={
                **self._specs(),
                "ok": tf.TensorSpec([], tf.bool),
                "reason": tf.TensorSpec([], tf.int32),
            },
        )

    def _specs(self):
        count = self.detector.max_detections
        found = {
            "boxes": tf.TensorSpec([count, 4], tf.float32),
            "scores": tf.TensorSpec([count], tf.float32),
            "classes": tf.TensorSpec([count], tf.int32),
            "names": tf.TensorSpec([count], tf.string),
            "number": tf.TensorSpec([], tf.int32),
            "size": tf.TensorSpec([2], tf.int32),
        }
        if self.detector.masks:
            shape = [count, MASK_SIZE, MASK_SIZE]
            found["masks"] = tf.TensorSpec(shape, tf.float32)
        return found

    def _one(self, content):
        images, status = decode_batch(
            content[None],
            0,
            crop=False,
            max_pixels=self.max_pixels,
            pixel_range=self.statistics.pixel_range,
        )
        good = tf.equal(status[0], OK)
        found = tf.cond(good, lambda: self._objects(images[0]), self._nothing)
        return {**found, "ok": good, "reason": status[0]}

    def _nothing(self):
        return {k: tf.zeros(v.shape, v.dtype) for k, v in self._specs().items()}

    def _objects(self, image):
        own = tf.shape(image)[:2]
        size = shortest_edge_in_graph(own, self.short_edge, self.long_edge)
        pixels = self.statistics.normalize(resized_in_graph(image, size))
        below, beside = tf.unstack(-size % MULTIPLE)
        pixels = tf.pad(pixels, [[0, below], [0, beside], [0, 0]])  # the mean colour
        found, masks = self.detector.detect(pixels[None], size[None])
        # Of x, y, x, y.
        limits, sides = (
            tf.cast(tf.gather(edges, [1, 0, 1, 0]), tf.float32) for edges in (own, size)
        )
        factors = limits / sides
        boxes = tf.clip_by_value(found.boxes[0] * factors, 0.0, limits)
        there = found.there[0] & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
        # Those that are there first, in their order.
        order = tf.argsort(tf.cast(~there, tf.int32), stable=True)
        there = tf.gather(there, order)

        def kept(values, nothing: Any = 0):
            values = tf.gather(values, order)
            rows = tf.reshape(there, [-1] + [1] * (values.shape.rank - 1))
            return tf.where(rows, values, tf.constant(nothing, values.dtype))

        names = tf.gather(tf.constant(self.detector.class_names), found.classes[0])
        answer = {
            "boxes": kept(boxes),
            "scores": kept(found.scores[0]),
            "classes": kept(found.classes[0]),
            "names": kept(names, b""),
            "number": tf.math.count_nonzero(there, dtype=tf.int32),
            "size": own,
        }
        if masks is not None:
            answer["masks"] = kept(masks[0])
        return answer


def shortest_edge_in_graph(size: Tensor, short: int, long: int) -> Tensor:
    """`slotcon_tf.detection.resize.shortest_edge_size` of what is known at run time.

    Args:
        size: int32 (2,), height and width.
        short: Pixels that the shortest edge becomes.
        long: Pixels that the longest edge becomes at most.

    Returns:
        int32 (2,).

    Example:
        >>> shortest_edge_in_graph(tf.constant([480, 640]), 800, 1333).numpy().tolist()
        [800, 1067]
        >>> shortest_edge_in_graph(tf.constant([480, 1000]), 800, 1333).numpy().tolist()
        [640, 1333]
    """
    edges = tf.cast(size, tf.float64)
    shortest = tf.reduce_min(edges)
    short_edge, long_edge = (tf.constant(x, tf.float64) for x in (short, long))
    new = tf.where(edges > shortest, short_edge / shortest * edges, short_edge)
    longest = tf.reduce_max(new)
    new = tf.where(longest > long_edge, new * (long_edge / longest), new)
    return tf.maximum(tf.cast(new + 0.5, tf.int32), 1)


def export_detector(
    model: MaskRCNN,
    export_dir: str | os.PathLike[str],
    *,
    precision: str = "float32",
    options: DetectorOptions = DetectorOptions(),  # noqa: B008  frozen
    warmup_batches: Iterable[int] = (),
    about: Mapping[str, Any] | None = None,
    verified: bool = False,
) -> pathlib.Path:
    """Writes `<export_dir>/<next version>/` of a detector, as `export_model` does.

    The names of the classes stand in `assets.extra/labels.txt`, too.

    Args:
        model: `MaskRCNN`.
        export_dir: Folder of all versions.
        precision: Of the encoder's weights and computation, "float32" or "bfloat16".
        options: `DetectorOptions`.
        warmup_batches: Images per warm-up request.
        about, verified: As of `slotcon_tf.serving.archive.export_model`.

    Returns:
        pathlib.Path of the new version's folder.

    Raises:
        ValueError: If what was written answers otherwise (`NotTheSame`); nothing is
            left then.

    Example:
        >>> import tempfile
        >>> from slotcon_tf import backbone
        >>> names = ("cat", "dog")
        >>> model = MaskRCNN(backbone("resnet10"), class_names=names)
        >>> export_detector(model, tempfile.mkdtemp()).name  # doctest: +SKIP
        '1'
    """
    served = ServedDetector(model, precision, options)
    export_dir = pathlib.Path(export_dir)
    with written_aside(export_dir / "new_version") as aside:
        archive: Any = archive_of(served, [served.detector])
        write_archive(archive, aside)
        labels = aside / LABELS_FILE
        labels.parent.mkdir(exist_ok=True)
        text = "".join(f"{name}\n" for name in model.class_names)
        labels.write_text(text, encoding="utf-8")
        if warmup_batches:
            signatures = served.signatures()
            write_warmup(aside, MODEL_NAME, signatures, warmup_batches, _WARM_EDGE)
        write_card(aside, _about(model, served, precision, about or {}))
        if verified:
            function = getattr(archive._tf_trackable, SIGNATURE)
            low = precision != "float32"
            verify(aside, {SIGNATURE: function}, _WARM_EDGE, 1e-2 if low else 1e-3)
            pixels = served.statistics.normalize(noise_pixels(_WARM_EDGE).astype("f4"))
            folded, own = (
                d.feature_maps(pixels, training=False) for d in (served.detector, model)
            )
            near("The folded encoder", folded, own, 0.1 if low else 1e-3)
        to_disk(aside)
        return publish(aside, export_dir)


def _about(model, served, precision, about):
    """What a model card says of a detector."""
    names = list(model.class_names)
    own = {
        "kind": "detector",
        "encoder": model.encoder.name,
        "precision": precision,
        "classes": names,
        "masks": bool(model.masks),
    }
    contract = input_contract(
        edge=f"shortest edge {served.short_edge}, longest {served.long_edge} at most",
        max_pixels=served.max_pixels,
        statistics=served.statistics,
        made="resized, its shape kept",
    )
    return {**about, "input": contract, "model": {**about.get("model", {}), **own}}
