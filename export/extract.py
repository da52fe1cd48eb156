"""Features of a folder of images straight from a SavedModel, without a server.

    python -m export.extract --model=served/slotcon --images=photos --output=out.npz

The same as `export.client` in all but where the model runs.
"""

import sys

import numpy as np
import tensorflow as tf
from absl import app, flags

from slotcon_tf.runs.command_line import run_main

from .extraction import ExtractionError, RequestError, extract
from .extraction_flags import define_flags, listed_images, run
from .loading import load_version
from .sending import ask

FLAGS = flags.FLAGS
_MODULE = "export.extract"


def define_all_flags():
    """Defines the flags of this main, which importing it does not."""
    flags.DEFINE_string(
        "model", None, "Folder of a version, or of all of them.", module_name=_MODULE
    )
    define_flags(_MODULE)


class LocalModel:
    """A SavedModel in this process, with `FeatureClient`'s methods.

    Args:
        path: Folder of a version, or of all versions: the newest is taken.
        signature: One that takes `image_bytes`.
        outputs: Names of the outputs to keep.

    Raises:
        FileNotFoundError: If there is no SavedModel.
        ExtractionError: If it has no such signature or outputs.
    """

    def __init__(self, path, *, signature="image_bytes", outputs=("pooled",)):
        self.path = path
        self.signature = signature
        self.outputs = tuple(outputs)
        signatures = load_version(path)
        if signature not in signatures:
            raise ExtractionError(
                f"signature must be one of {sorted(signatures)}. "
                f"Received: {signature!r}."
            )
        # The pair keeps alive what the function belongs to.
        self._function, self._loaded = signatures[signature]
        known = self._function.structured_outputs
        unknown = sorted(set(self.outputs) - set(known))
        if unknown or "ok" not in known:
            raise ExtractionError(
                f"outputs of {signature} are {sorted(known)}. Received: {unknown}. "
                "Take a signature of files, such as image_bytes."
            )

    def predict(self, content):
        """Features of files; see `FeatureClient.predict`."""
        found = ask(self._predict, content)
        names = {*self.outputs, "ok", "reason"}
        return {name: np.asarray(found[name]) for name in names}

    def _predict(self, content):
        try:
            return self._function(image_bytes=tf.constant(content, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(str(error).splitlines()[0][:300]) from error

    def extract(self, images, output, **options):
        """`export.extraction.extract` with this model; see there."""
        settings = {
            "model": str(self.path),
            "signature": self.signature,
            "outputs": list(self.outputs),
        }
        return extract(self.predict, images, output, settings=settings, **options)


def main(argv):
    if len(argv) > 1 or not FLAGS.model:
        raise app.UsageError("--model is needed, and no arguments.")
    try:
        images = listed_images()
        model = LocalModel(
            FLAGS.model, signature=FLAGS.signature, outputs=FLAGS.outputs
        )
        run(model.extract, images)
    except (ValueError, OSError, RequestError) as error:
        sys.exit(f"extract: {error}")


if __name__ == "__main__":
    define_all_flags()
    run_main(main, "export.extract")
