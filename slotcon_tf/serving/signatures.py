"""The functions that a served model answers, one per signature."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from slotcon_tf.images.statistics import IMAGENET, ImageStatistics
from slotcon_tf.method.slots import unit_slots
from slotcon_tf.method.upsampled import upsampled_confidence
from slotcon_tf.serving.decoding import OK, decode_batch
from slotcon_tf.serving.instances import boxes_of, largest_instances, zeros_unless
from slotcon_tf.serving.whitening import Whitening
from slotcon_tf.types import Tensor


@dataclasses.dataclass(frozen=True)
class ServingOptions:
    """Sizes and limits of what is served.

    Attributes:
        image_size: Edge in pixels that files are brought to; 0 keeps the size of a
            single image.
        mask_size: Edge in pixels of the masks of `groups`.
        max_objects: S, slots per image in `objects`, the largest ones.
        max_instances: M, parts per image in `instances`, the largest ones.
        min_instance_area: Smaller parts are none, as share of the image.
        max_pixels: Images with more are not decoded.
        signatures: Names of those that are served; all there are, if empty.

    Example:
        >>> ServingOptions(image_size=448, mask_size=448).max_objects
        32
    """

    image_size: int = 224
    mask_size: int = 224
    max_objects: int = 32
    max_instances: int = 32
    min_instance_area: float = 0.03  # of a map of 7 x 7, two positions or more
    max_pixels: int = 50_000_000
    signatures: tuple[str, ...] = ()


def _any_number(method):
    """Answers an empty batch as well: encoders compute one image, which is dropped."""

    @functools.wraps(method)
    def answer(self, batch):
        shape = tf.shape(batch)
        missing = tf.maximum(1 - shape[:1], 0)
        filling = tf.zeros(tf.concat([missing, shape[1:]], 0), batch.dtype)
        found = method(self, tf.concat([batch, filling], 0))
        return {name: value[: shape[0]] for name, value in found.items()}

    return answer


class ServedModel(tf.Module):
    """An encoder, and the heads that make groups of its map, behind signatures.

    Args:
        pyramid: Keras model, normalised images to a dict of maps; the last is the
            encoder's final one.
        heads: `slotcon_tf`'s `GroupingNetwork`, whose projector and prototypes are
            used, or None: no `groups` and no `objects` then.
        temperature: Of the assignments; the teacher's.
        options: `ServingOptions`.
        statistics: What images are normalised with; the model's own.
        whitening: `Whitening` of its pooled features, or None: no `embed_whitened`
            then.

    Example: See `slotcon_tf.serving.serve`.
        >>> import keras
        >>> images = keras.Input((None, None, 3))
        >>> pyramid = keras.Model(images, {"map": keras.layers.Conv2D(4, 3)(images)})
        >>> list(ServedModel(pyramid, None, None, ServingOptions()).signatures())
        ['serving_default', 'image_bytes', 'embed', 'pyramid']
    """

    def __init__(
        self,
        pyramid: Any,
        heads: Any,
        temperature: float | None,
        options: ServingOptions,
        statistics: ImageStatistics = IMAGENET,
        whitening: Whitening | None = None,
    ) -> None:
        super().__init__()
        self.pyramid_model = pyramid
        self.heads = heads
        self.temperature = temperature
        self.options = options
        self.statistics = statistics
        self.whitening = whitening

    def signatures(self) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
        """Dict of name to (function, its input signature)."""
        image = tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")
        data = tf.TensorSpec([None], tf.string, name="image_bytes")
        found = {
            "serving_default": (self.features, [image]),
            "image_bytes": (self.features_of_bytes, [data]),
            "embed": (self.embed, [data]),
            "pyramid": (self.pyramid, [image]),
        }
        if self.whitening is not None:
            found["embed_whitened"] = (self.embed_whitened, [data])
        if self.heads is not None:
            found["groups"] = (self.groups, [data])
            found["objects"] = (self.objects, [data])
            found["instances"] = (self.instances, [data])
        return self._chosen(found)

    def _chosen(self, found):
        names = self.options.signatures or tuple(found)
        unknown = [name for name in names if name not in found]
        if unknown:
            raise ValueError(
                f"`signatures` must be of {', '.join(found)}. Received: "
                f"signatures={','.join(names)}."
            )
        return {name: found[name] for name in names}

    @_any_number
    def features(self, image: Tensor) -> dict[str, Tensor]:
        """uint8 (N, H, W, 3), any size -> `pooled` (N, C), `map` (N, h, w, C)."""
        return _pooled(self._final_map(_pixels(image)))

    @_any_number
    def features_of_bytes(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, string (N,), as evaluation crops them -> `pooled`, `map`, `ok`."""
        images, status = self._images(image_bytes, crop=True)
        return _of_good(_pooled(self._final_map(images)), status)

    @_any_number
    def embed(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, as `image_bytes` sees them -> `pooled` (N, C), `ok`, `reason`.

        A vector an image, and no map: for search.
        """
        images, status = self._images(image_bytes, crop=True)
        found = {"pooled": _pooled(self._final_map(images))["pooled"]}
        return _of_good(found, status)

    @_any_number
    def embed_whitened(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, as `image_bytes` sees them -> `whitened` (N, C), `ok`, `reason`.

        See `slotcon_tf.serving.whitening`. A signature of its own: REST has no output
        filter, and would send both vectors.
        """
        found = self.embed(image_bytes)
        assert self.whitening is not None
        whitened = self.whitening(found.pop("pooled"))
        return _of_good({"whitened": whitened}, found["reason"])

    @_any_number
    def pyramid(self, image: Tensor) -> dict[str, Tensor]:
        """uint8 (N, H, W, 3) -> `P2` .. `P5` (N, H / 2^n, W / 2^n, C_n)."""
        maps = self._levels(_pixels(image))
        return {name: tf.cast(level, tf.float32) for name, level in maps.items()}

    @_any_number
    def groups(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, stretched to the square -> `assignments`, `confidence`, `ok`.

        `assignments` int32 (N, mask, mask) are prototype ids, the argmax of the
        bilinearly upsampled logits; `confidence` is their share of the softmax.
        """
        images, status = self._images(image_bytes, crop=False)
        _, logits = self._grouped(images)
        size = [self.options.mask_size] * 2
        assignments, confidence = upsampled_confidence(logits, size, self.temperature)  # pyright: ignore[reportArgumentType]
        return _of_good({"assignments": assignments, "confidence": confidence}, status)

    @_any_number
    def objects(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, stretched to the square -> the active slots, the largest first.

        `vector` (N, S, D) of length 1, `prototype` int32 (N, S), `area` (N, S) as share
        of the image, `box` (N, S, 4) as (x_min, y_min, x_max, y_max) in [0, 1],
        `valid` bool (N, S); zeros where not valid.
        """
        images, status = self._images(image_bytes, crop=False)
        projected, logits = self._grouped(images)
        found = largest_slots(
            projected,
            logits,
            self.options.max_objects,
            self.temperature,  # pyright: ignore[reportArgumentType]
        )
        return _of_good(found, status)

    @_any_number
    def instances(self, image_bytes: Tensor) -> dict[str, Tensor]:
        """Files, stretched to the square -> connected parts of groups, largest first.

        `vector` (N, M, D) of length 1, `prototype` int32 (N, M), `area`, `score`
        (N, M), `box` (N, M, 4), `mask` bool (N, M, h, w) at the map's resolution,
        `valid` bool (N, M): see `slotcon_tf.serving.instances.largest_instances`.
        """
        images, status = self._images(image_bytes, crop=False)
        projected, logits = self._grouped(images)
        found = largest_instances(
            projected,
            logits,
            self.temperature,  # pyright: ignore[reportArgumentType]
            max_instances=self.options.max_instances,
            min_area=self.options.min_instance_area,
        )
        return _of_good(found, status)

    def _images(self, data, crop):
        size = self.options.image_size
        return decode_batch(
            data,
            size,
            crop=crop,
            max_pixels=self.options.max_pixels,
            pixel_range=self.statistics.pixel_range,
        )

    def _levels(self, images):
        return self.pyramid_model(self.statistics.normalize(images), training=False)

    def _final_map(self, images):
        return tf.cast(list(self._levels(images).values())[-1], tf.float32)

    def _grouped(self, images):
        projected = self.heads.projector(self._final_map(images), training=False)
        projected = tf.cast(projected, tf.float32)
        return projected, self.heads.grouping(projected)


def _pixels(image):
    there = tf.reduce_all(tf.shape(image)[1:3] > 0)
    message = "image must be at least a pixel high and wide. Received the shape:"
    tf.debugging.Assert(there, [message, tf.shape(image)])
    return tf.cast(image, tf.float32)


def _pooled(maps):
    return {"pooled": tf.reduce_mean(maps, axis=[1, 2]), "map": maps}


def _of_good(outputs, status):
    """Zeros in the rows of bad images, and the rows' `ok` and `reason`."""
    good = tf.equal(status, OK)

    def kept(value):
        row = tf.reshape(good, [-1] + [1] * (value.shape.rank - 1))
        return tf.where(row, value, tf.zeros([], value.dtype))

    found = {name: kept(value) for name, value in outputs.items() if name != "valid"}
    if "valid" in outputs:
        found["valid"] = outputs["valid"] & good[:, None]
    return {**found, "ok": good, "reason": status}


def largest_slots(
    projected: Tensor, logits: Tensor, max_objects: int, temperature: float
) -> dict[str, Tensor]:
    """The slots of the prototypes that win most positions.

    Args:
        projected: Projected map (N, h, w, D).
        logits: Assignment logits (N, h, w, K).
        max_objects: S; K if there are fewer prototypes.
        temperature: Of the assignments.

    Returns:
        Dict of `vector`, `prototype`, `area`, `box` and `valid`, as of `objects`.

    Example:
        >>> logits = tf.one_hot([[[2, 2], [2, 0]]], 3)  # (1, 2, 2, 3)
        >>> found = largest_slots(tf.ones([1, 2, 2, 5]), logits, 3, 0.07)
        >>> found["prototype"].numpy().tolist(), found["area"].numpy().tolist()
        ([[2, 0, 0]], [[0.75, 0.25, 0.0]])
    """
    num_prototypes = logits.shape[-1]
    height, width = tf.unstack(tf.shape(logits)[1:3])
    winners = tf.argmax(logits, axis=-1, output_type=tf.int32)  # (N, h, w)
    wins = tf.reduce_sum(tf.one_hot(winners, num_prototypes), axis=[1, 2])  # (N, K)
    wins, ids = tf.math.top_k(wins, min(max_objects, num_prototypes))  # (N, S)  # pyright: ignore[reportArgumentType]
    mine = winners[:, None] == ids[..., None, None]  # (N, S, h, w)
    found = {
        # Its positions in rows; pooling wants the number of them known or -1.
        "vector": unit_slots(projected, logits, temperature, ids),
        "prototype": ids,
        "area": wins / tf.cast(height * width, tf.float32),
        "box": boxes_of(mine),
    }
    return zeros_unless(wins > 0, found)
