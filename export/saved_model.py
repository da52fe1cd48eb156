"""Writes a trained encoder as a SavedModel for TF Serving.

    python -m export.saved_model --checkpoint=runs/photos --export_dir=served/slotcon

Into `<export_dir>/<next version>/`, built aside and renamed into place: a server that
polls the folder never sees half a model.
"""

import sys

import tensorflow as tf
from absl import app, flags, logging

from export.archive import export_encoder
from slotcon_tf import SlotCon
from slotcon_tf.interop import load_pretrained

FLAGS = flags.FLAGS
_OWN = {"module_name": "export.saved_model"}
flags.DEFINE_string(
    "checkpoint",
    None,
    "A finished run's work directory, a .keras file, converted or original weights, or "
    "a published model's name.",
    **_OWN,
)
flags.DEFINE_string("export_dir", None, "Folder of all versions.", **_OWN)
flags.DEFINE_enum("which", "teacher", ["teacher", "student"], "Whose encoder.", **_OWN)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "bfloat16"], "Of the computation.", **_OWN
)


def main(argv):
    if len(argv) > 1 or not FLAGS.checkpoint or not FLAGS.export_dir:
        raise app.UsageError("--checkpoint and --export_dir are needed, and no more.")
    try:
        model, _ = load_pretrained(FLAGS.checkpoint)
        if isinstance(model, SlotCon):
            model = model.feature_extractor(FLAGS.which)
        print(f"Written: {export_encoder(model, FLAGS.export_dir, FLAGS.precision)}")
    except (ValueError, OSError) as error:
        sys.exit(f"saved_model: {error}")


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.WARNING)
    app.run(main)
