"""An encoder as a SavedModel that TF Serving loads."""

import os
import pathlib
import shutil

import keras

from export.folding import can_fold, fold_batch_norm
from export.signatures import features_signature


def export_encoder(encoder, export_dir, precision="float32"):
    """Writes `<export_dir>/<next version>/`, built aside and renamed into place.

    Batch normalisation is folded into the convolutions first, where the encoder is a
    functional model. keras.export's archive is used and not tf.saved_model.save: the
    latter's variables are not found by session-based loaders, of which TF Serving is
    one.

    Args:
        encoder: Keras model, normalised images (N, H, W, 3) to a map (N, h, w, C).
        export_dir: Folder of all versions.
        precision: Of the weights and the computation, "float32" or "bfloat16"; what
            comes out is float32.

    Returns:
        pathlib.Path of the new version's folder.

    Raises:
        ValueError: If bfloat16 is asked of an encoder that is no functional model.
    """
    if can_fold(encoder):
        encoder = fold_batch_norm(encoder, precision)
    elif precision != "float32":
        raise ValueError(
            "precision must be 'float32' for an encoder that is not a functional "
            f"Keras model. Received: precision={precision!r} for {encoder.name!r}."
        )
    export_dir = pathlib.Path(export_dir)
    export_dir.mkdir(parents=True, exist_ok=True)
    versions = [int(p.name) for p in export_dir.iterdir() if p.name.isdigit()]
    target = export_dir / str(max(versions, default=0) + 1)
    # A server that polls the folder takes numbers only: it never sees this one.
    aside = export_dir / f".writing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    archive = keras.export.ExportArchive()
    archive.track(encoder)
    function, signature = features_signature(encoder)
    archive.add_endpoint("serving_default", function, input_signature=signature)
    archive.write_out(str(aside), verbose=False)
    aside.rename(target)
    return target
