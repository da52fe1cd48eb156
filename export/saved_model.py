"""Writes a trained model as a SavedModel for TF Serving.

    python -m export.saved_model --checkpoint=runs/photos --export_dir=served/slotcon

Into `<export_dir>/<next version>/`, built aside and renamed into place: a server that
polls the folder never sees half a model. With it come warm-up requests for every
signature and batch size, and, with --calibration_images, what the precision costs.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags, logging

from slotcon_tf.data import open_source
from slotcon_tf.images import square, statistics_of
from slotcon_tf.runs.command_line import PREFIX, run_main
from slotcon_tf.runs.loading import load_trained
from slotcon_tf.serving.archive import export_model
from slotcon_tf.serving.onnx_file import export_onnx
from slotcon_tf.serving.signatures import ServingOptions

FLAGS = flags.FLAGS
_OWN = {"module_name": "export.saved_model"}
_DEFAULTS = ServingOptions()
BATCH_SIZES = ["1", "8", "32"]  # as in serving/batching.config


def define_flags():
    """Defines the flags of this main, which importing it does not."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "A run's work directory or one of its checkpoints, a .keras file, converted or "
        "original weights, or a published model's name.",
        **_OWN,
    )
    flags.DEFINE_string(*PREFIX, **_OWN)
    flags.DEFINE_string("export_dir", None, "Folder of all versions.", **_OWN)
    flags.DEFINE_enum(
        "format",
        "saved_model",
        ["saved_model", "onnx"],
        "onnx writes the encoder alone, as encoder.onnx.",
        **_OWN,
    )
    flags.DEFINE_enum(
        "which", "teacher", ["teacher", "student"], "Whose encoder.", **_OWN
    )
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "bfloat16"], "Of the computation.", **_OWN
    )
    flags.DEFINE_enum(
        "quantize",
        None,
        ["int8"],
        "Write a LiteRT file of the encoder as well.",
        **_OWN,
    )
    flags.DEFINE_string(
        "calibration_images",
        None,
        "Folder of images like those to come: int8's ranges, and the distance of "
        "bfloat16 and int8 from float32, are taken from them.",
        **_OWN,
    )
    flags.DEFINE_integer(
        "image_size",
        _DEFAULTS.image_size,
        "Edge that files are brought to; 0: their own, one image at a time.",
        lower_bound=0,
        **_OWN,
    )
    flags.DEFINE_integer(
        "mask_size", _DEFAULTS.mask_size, "Edge of masks.", lower_bound=1, **_OWN
    )
    flags.DEFINE_integer(
        "max_objects", _DEFAULTS.max_objects, "Slots per image.", lower_bound=1, **_OWN
    )
    flags.DEFINE_integer(
        "max_pixels",
        _DEFAULTS.max_pixels,
        "Larger images are not decoded.",
        lower_bound=1,
        **_OWN,
    )
    flags.DEFINE_list(
        "batch_sizes", BATCH_SIZES, "Batch sizes to warm up; none: no warm-up.", **_OWN
    )


_MAX_CALIBRATION = 200


def main(argv):
    if len(argv) > 1 or not FLAGS.checkpoint or not FLAGS.export_dir:
        raise app.UsageError("--checkpoint and --export_dir are needed, and no more.")
    try:
        model, _ = load_trained(FLAGS.checkpoint, prefix=FLAGS.prefix)
        images = _calibration_images(statistics_of(model).pixel_range)
        if FLAGS.format == "onnx":
            path = pathlib.Path(FLAGS.export_dir) / "encoder.onnx"
            print(f"Written: {export_onnx(model, path, which=FLAGS.which)}")
            return
        folder = export_model(
            model,
            pathlib.Path(FLAGS.export_dir),
            which=FLAGS.which,
            precision=FLAGS.precision,
            quantize=FLAGS.quantize,
            options=ServingOptions(
                image_size=FLAGS.image_size,
                mask_size=FLAGS.mask_size,
                max_objects=FLAGS.max_objects,
                max_pixels=FLAGS.max_pixels,
            ),
            warmup_batches=[int(size) for size in FLAGS.batch_sizes if size],
            images=images,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"saved_model: {error}")
    print(f"Written: {folder}")
    report = folder / "assets.extra" / "precision.json"
    if report.exists():
        print(report.read_text().strip())


def _calibration_images(pixel_range):
    """uint8 (M, size, size, 3) of the folder's first images, or None."""
    if not FLAGS.calibration_images:
        if FLAGS.quantize:
            raise ValueError(
                "--quantize=int8 needs --calibration_images, a folder of images like "
                "those to come."
            )
        return None
    folder = FLAGS.calibration_images
    source = open_source("folder", folder, pixel_range=pixel_range)
    size = FLAGS.image_size or _DEFAULTS.image_size
    count = min(source.num_images, _MAX_CALIBRATION)
    images = [square(source.load(index), size, "stretched") for index in range(count)]
    return np.stack(images)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    define_flags()
    run_main(main, "export.saved_model")
