"""A model as a SavedModel that TF Serving loads."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from slotcon_tf.files import to_disk, written_aside
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.serving.batching import write_batching
from slotcon_tf.serving.folding import can_fold, fold_batch_norm
from slotcon_tf.serving.model_card import input_contract, write_card
from slotcon_tf.serving.precision import write_quantized
from slotcon_tf.serving.signatures import ServedModel, ServingOptions
from slotcon_tf.serving.verification import near, noise_pixels, verify
from slotcon_tf.serving.warmup import write_warmup
from slotcon_tf.serving.whitening import Whitening, features_of

MODEL_NAME = "slotcon"
DEFAULTS = ServingOptions()


def export_model(
    model: keras.Model,
    export_dir: str | os.PathLike[str],
    *,
    which: str = "teacher",
    precision: str = "float32",
    quantize: str | None = None,
    options: ServingOptions = DEFAULTS,
    warmup_batches: Iterable[int] = (),
    images: np.ndarray | None = None,
    batching: bool = False,
    whiten: Iterable[np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
    verified: bool = False,
) -> pathlib.Path:
    """Writes `<export_dir>/<next version>/`, built aside and renamed into place.

    Batch normalisation is folded into the convolutions first, where the encoder is a
    functional model. keras.export's archive is used and not tf.saved_model.save: the
    latter's variables are not found by session-based loaders, of which TF Serving is
    one.

    Args:
        model: A `SlotCon`, or a Keras model of an encoder, normalised images
            (N, H, W, 3) to a map (N, h, w, C); that has no groups and no objects.
        export_dir: Folder of all versions.
        which: "teacher" or "student" of a `SlotCon`.
        precision: Of the encoder's weights and computation, "float32" or "bfloat16";
            what comes out is float32.
        quantize: "int8" writes a LiteRT file of the encoder into the version's
            assets.extra, for images of the size of `images`.
        options: `ServingOptions`.
        warmup_batches: Images per warm-up request; of each signature there is one.
        images: uint8 (M, height, width, 3) like those to come: ranges for int8, and
            what the distances from float32 in assets.extra/precision.json are
            measured on.
        batching: Whether TF Serving may batch requests; see
            `slotcon_tf.serving.batching`.
        whiten: Images uint8 (height, width, 3), squares of the served size: there
            is `embed_whitened`, by the statistics of their features.
        about: What `slotcon_tf.serving.model_card.write_card` takes; what the model
            itself knows is added.
        verified: Whether to load what was written in a session first, and to compare
            its answers with the model in memory.

    Returns:
        pathlib.Path of the new version's folder.

    Raises:
        ValueError: If bfloat16 or int8 is asked of an encoder that is no functional
            model, or int8 without images; if signatures that take images of any size
            are to be batched; if there are too few images to whiten by; if what was
            written answers otherwise (`NotTheSame`). Nothing is left then.

    Example:
        >>> import tempfile
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
        >>> export_model(encoder, tempfile.mkdtemp()).name  # doctest: +SKIP
        '1'
    """
    encoder, heads = _parts(model, which)
    served = serve(model, which=which, precision=precision, options=options)
    if whiten is not None:
        served.whitening = Whitening.of(features_of(served, whiten))
    export_dir = pathlib.Path(export_dir)
    edge = options.image_size or ServingOptions.image_size
    # A server that polls the folder takes numbers only: it never sees what is aside.
    with written_aside(export_dir / "new_version") as aside:
        archive = archive_of(served, [served.pyramid_model, heads])
        write_archive(archive, aside)
        batches = tuple(warmup_batches) if options.image_size else (1,)
        if warmup_batches:
            write_warmup(aside, MODEL_NAME, served.signatures(), batches, edge)
        if batching:
            write_batching(aside, served.signatures(), batches)
        write_quantized(aside, encoder, served, quantize, images)
        write_card(aside, _about(model, which, precision, served, about or {}))
        if verified:
            _verify(aside, archive, served, encoder, edge, precision)
        to_disk(aside)
        return publish(aside, export_dir)


def _about(model, which, precision, served, about):
    """What a model card says of an encoder or a `SlotCon`."""
    kind = "encoder" if served.heads is None else "slotcon"
    encoder, _ = _parts(model, which)
    own = {"kind": kind, "encoder": encoder.name, "precision": precision}
    if served.heads is not None:
        own["network"] = which
        own["prototypes"] = int(served.heads.grouping.num_prototypes)
    size, options = served.options.image_size, dataclasses.asdict(served.options)
    contract = input_contract(
        edge=f"{size} x {size} pixels" if size else "an image's own, one at a time",
        max_pixels=served.options.max_pixels,
        statistics=served.statistics,
        made="image_bytes and embed: the shorter edge resized to 8/7 of it, and the "
        "centre cut out; groups, objects and instances: stretched to it"
        if size
        else "as it is",
    )
    whitening = served.whitening and served.whitening.facts
    found = {**about, "input": {**contract, "options": options}, "whitening": whitening}
    return {**found, "model": {**about.get("model", {}), **own}}


def _verify(aside, archive, served, encoder, edge, precision):
    """Refuses what was written if it is not what is in memory."""
    low = precision != "float32"
    functions = {n: getattr(archive._tf_trackable, n) for n in served.signatures()}

    def unfolded(image):
        images = served.statistics.normalize(tf.cast(image, tf.float32))
        found = encoder(images, training=False)
        found = list(found.values())[-1] if isinstance(found, dict) else found
        maps = tf.cast(found, tf.float32)
        return {"pooled": tf.reduce_mean(maps, axis=[1, 2]), "map": maps}

    one_by_one = not served.options.image_size
    tolerance = 1e-2 if low else 1e-3
    distances = verify(aside, functions, edge, tolerance, one_by_one)
    # And what is in memory, as before its normalisations were folded: heads have none.
    pixels = tf.constant(noise_pixels(edge))
    own = near(
        "The folded encoder",
        served.features(pixels),
        unfolded(pixels),
        0.1 if low else 1e-3,
    )
    largest = max(*distances.values(), own)
    logging.info("Verified in a session: at most %.1e away", largest)


def write_archive(archive: Any, folder: pathlib.Path) -> None:
    """Writes an archive's SavedModel, with its endpoints as signatures and no other.

    Keras's `write_out` calls the first endpoint `serving_default` as well where there
    is none of that name: clients that name no signature would send it what they have.

    Args:
        archive: Of `archive_of`.
        folder: Of the version.

    Example:
        >>> import tempfile
        >>> archive = keras.export.ExportArchive()
        >>> spec = tf.TensorSpec([None], name="x")
        >>> _ = archive.add_endpoint("half", lambda x: {"y": x / 2}, [spec])
        >>> write_archive(archive, pathlib.Path(tempfile.mkdtemp()))
    """
    archive._filter_and_track_resources()
    signatures = {n: archive._get_concrete_fn(n) for n in archive._endpoint_names}
    tf.saved_model.save(archive._tf_trackable, str(folder), signatures=signatures)


def archive_of(served: Any, parts: Iterable[Any]) -> Any:
    """A keras.export.ExportArchive with an endpoint for every signature.

    It writes each variable that a signature uses once, and no other.

    Args:
        served: What has `signatures()`, as a `ServedModel`.
        parts: Models whose tables and other resources they need; None is passed over.

    Example:
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
        >>> served = serve(encoder)
        >>> archive = archive_of(served, [served.pyramid_model])
        >>> sorted(archive._endpoint_names)
        ['embed', 'image_bytes', 'pyramid', 'serving_default']
    """
    archive: Any = keras.export.ExportArchive()
    for part in filter(None, parts):
        archive.track(part)
    used = {}
    for name, (function, signature) in served.signatures().items():
        endpoint = archive.add_endpoint(name, function, input_signature=signature)
        used |= {id(v): v for v in endpoint.get_concrete_function().variables}
        if name == "serving_default":
            # What tf.saved_model.load gives can be called as well; add_endpoint would
            # make a signature of that name.
            archive._tf_trackable.__call__ = endpoint
    # `track` notes Keras's variables, and a graph has TensorFlow's within them: both
    # would be written, and of the parts what no signature uses as well.
    trained = [v for v in used.values() if v.trainable]
    kept = [v for v in used.values() if not v.trainable]
    archive.add_variable_collection("variables", [*trained, *kept])
    archive.add_variable_collection("trainable_variables", trained)
    archive.add_variable_collection("non_trainable_variables", kept)
    return archive


def publish(aside: pathlib.Path, export_dir: pathlib.Path) -> pathlib.Path:
    """Gives a finished folder the next free number, whoever else is writing one.

    Example:
        >>> import tempfile
        >>> versions = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("1", ".writing-2"):
        ...     (versions / name).mkdir()
        >>> publish(versions / ".writing-2", versions).name
        '2'
    """
    while True:
        versions = [int(p.name) for p in export_dir.iterdir() if p.name.isdigit()]
        target = export_dir / str(max(versions, default=0) + 1)
        try:
            return aside.rename(target)
        except OSError:
            if not target.exists():
                raise


def serve(
    model: keras.Model,
    *,
    which: str = "teacher",
    precision: str = "float32",
    options: ServingOptions = DEFAULTS,
) -> ServedModel:
    """The `ServedModel` of a `SlotCon` or an encoder; see `export_model`.

    Args:
        model, which, precision, options: As there.

    Raises:
        ValueError: If bfloat16 is asked of an encoder that is no functional model.

    Example:
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
        >>> found = serve(encoder).features(np.zeros((2, 33, 33, 3), np.uint8))
        >>> found["pooled"].shape, found["map"].shape
        (TensorShape([2, 4]), TensorShape([2, 16, 16, 4]))
    """
    encoder, heads = _parts(model, which)
    if can_fold(encoder):
        pyramid = fold_batch_norm(pyramid_model(encoder), precision)
    elif precision == "float32":
        pyramid = _OneLevel(encoder)
    else:
        raise ValueError(
            "precision must be 'float32' for an encoder that is not a functional "
            f"Keras model. Received: precision={precision!r} for {encoder.name!r}."
        )
    temperature = None if heads is None else model.teacher_temperature
    return ServedModel(pyramid, heads, temperature, options, statistics_of(model))


def _parts(model, which):
    """The encoder, and the network around it if there is one."""
    if not isinstance(model, SlotCon):
        return model, None
    heads = model.network(which)
    return heads.encoder, heads


def pyramid_model(encoder: Any) -> keras.Model:
    """The encoder with a dict of its maps as output; of one, if it has no pyramid.

    Args:
        encoder: A functional Keras model.

    Example:
        >>> images = keras.Input((None, None, 3))
        >>> encoder = keras.Model(images, keras.layers.Conv2D(4, 3, 2)(images))
        >>> list(pyramid_model(encoder).output)
        ['map']
    """
    levels = getattr(encoder, "pyramid_outputs", None) or {"map": encoder.outputs[0]}
    return keras.Model(encoder.inputs, dict(levels), name=encoder.name)


class _OneLevel(keras.layers.Layer):
    """What `pyramid_model` is, of an encoder whose layers are not known."""

    def __init__(self, encoder):
        super().__init__(name="one_level")
        self.encoder = encoder
        self.built = True  # as the encoder is

    def call(self, images, training=False):
        return {"map": self.encoder(images, training=training)}
