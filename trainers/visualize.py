"""A report of a run in one HTML file, with pictures of what it has learnt.

    python -m trainers.visualize --checkpoint=runs/photos --data_dir=photos

Shows scores and training curves where the run's folder has them, slots over images,
dense features, the nearest images of every prototype, and how much each is used. The
page needs no network. Of an encoder alone only the dense features are shown.
"""

import datetime
import pathlib
import sys

import tensorflow as tf
from absl import app, flags

from slotcon_tf import SlotCon
from slotcon_tf.data import open_source
from slotcon_tf.data.bad_images import TooManyBadImages
from slotcon_tf.data.source import spaced
from slotcon_tf.files import write_text
from slotcon_tf.images.decoding import MAX_PIXELS
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.interop import CheckpointFileError
from slotcon_tf.progress import bar
from slotcon_tf.runs.command_line import PREFIX, run_main
from slotcon_tf.runs.loading import load_trained, results_folder, run_folder
from slotcon_tf.runs.workdir import FLAGFILE
from slotcon_tf.visualize.curves import read_history
from slotcon_tf.visualize.maps import map_reader
from slotcon_tf.visualize.overlays import fit_edge
from slotcon_tf.visualize.prototypes import PrototypeAtlas
from slotcon_tf.visualize.report import Report
from slotcon_tf.visualize.scores import read_scores

FLAGS = flags.FLAGS
_OWN = {"module_name": "trainers.visualize"}
_PAGE = "report.html"
flags.DEFINE_string(
    "checkpoint",
    None,
    "Work directory of a run, finished or not, or one of its checkpoints; a .keras or "
    ".pth file; a published model's name.",
    **_OWN,
)
flags.DEFINE_string(*PREFIX, **_OWN)
flags.DEFINE_string(
    "dataset",
    "folder",
    "folder, coco, coco_plus, imagenet, list, records, tfds:NAME, scenes or fake.",
    **_OWN,
)
flags.DEFINE_string("data_dir", None, "Folder of the images, or the list file.", **_OWN)
flags.DEFINE_bool(
    "allow_remote_paths", False, "A local list may name remote files (gs://).", **_OWN
)
flags.DEFINE_enum(
    "which", "teacher", ("teacher", "student"), "Whose groups and features.", **_OWN
)
flags.DEFINE_integer(
    "num_images", 12, "Images with slots and features.", lower_bound=1, **_OWN
)
flags.DEFINE_integer(
    "prototype_images",
    200,
    "Images among which each prototype's nearest are sought.",
    lower_bound=1,
    **_OWN,
)
flags.DEFINE_integer(
    "max_prototypes", 64, "Prototypes shown, most used first.", lower_bound=1, **_OWN
)
flags.DEFINE_float(
    "scale",
    1.0,
    "Images are resized by this first: larger ones give finer maps.",
    lower_bound=0.05,
    upper_bound=16.0,
    **_OWN,
)
flags.DEFINE_integer(
    "max_edge", 640, "Larger images are shrunk to this edge first.", 32, **_OWN
)
flags.DEFINE_integer("max_pixels", MAX_PIXELS, "Larger images are skipped.", **_OWN)
flags.DEFINE_string(
    "output",
    None,
    "HTML file to write; report.html in the checkpoint's folder if it is one.",
    **_OWN,
)
flags.DEFINE_string("pictures", None, "Folder for every picture as a PNG file.", **_OWN)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"No arguments but flags are taken. Received: {argv[1:]}.")
    if not FLAGS.checkpoint:
        raise app.UsageError("--checkpoint is needed: a run's work directory, or more.")
    try:
        path = visualize()
    except (
        CheckpointFileError,
        TooManyBadImages,
        ValueError,
        OSError,
        tf.errors.OpError,
    ) as error:
        sys.exit(f"visualize: {error}")
    print(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def visualize():
    """Writes the report; returns its path."""
    checkpoint = pathlib.Path(FLAGS.checkpoint)
    folder = results_folder(checkpoint)
    output = pathlib.Path(FLAGS.output or (folder or pathlib.Path()) / _PAGE)
    if output.is_dir():
        raise ValueError(
            f"--output must be a file to write. Received: {output}, a folder. Take "
            f"{output / _PAGE}."
        )
    for place in filter(None, (output.parent, FLAGS.pictures)):
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)  # fails now, or never
    model, _ = load_trained(FLAGS.checkpoint, prefix=FLAGS.prefix)
    source = open_source(
        FLAGS.dataset,
        FLAGS.data_dir,
        allow_remote=FLAGS.allow_remote_paths,
        max_pixels=FLAGS.max_pixels,
        max_bad_share=1.0,  # a report of what is left is better than none
        pixel_range=statistics_of(model).pixel_range,
    )
    shown, atlas = look(model, source)
    report = Report(
        name=checkpoint.resolve().name if folder else checkpoint.name,
        facts=_facts(model, source, len(atlas) if atlas else len(shown)),
        shown=shown,
        atlas=atlas,
        skipped=source.bad.reasons,
        max_prototypes=FLAGS.max_prototypes,
    )
    if folder:
        _add_records(report, folder, run_folder(checkpoint))
    write_text(output, report.html(FLAGS.pictures))
    return output


def look(model, source):
    """Reads the images and what the model makes of them.

    Returns:
        Tuple of the shown images, a list of (name, image, `ImageMaps`), and a
        `PrototypeAtlas` of all, or None where the model has no groups.

    Raises:
        ValueError: If no image can be used.
    """
    reader = map_reader(model, FLAGS.which, FLAGS.scale)
    atlas, count = None, FLAGS.num_images
    if isinstance(model, SlotCon):
        atlas = PrototypeAtlas(model.num_prototypes)
        count = max(count, FLAGS.prototype_images)
    count = min(count, source.num_images)
    wanted = spaced(FLAGS.num_images, count)
    shown, images = [], source.sample(count)
    images = bar(images, total=count, unit="image", desc="visualize", leave=False)
    for sample in images:
        image = fit_edge(sample.image, FLAGS.max_edge)
        due = len(shown) < len(wanted) and sample.place >= wanted[len(shown)]
        if atlas is None and not due:
            continue
        maps = reader(image)
        if atlas is not None:
            atlas.add(sample.name, image, maps)
        if due:
            shown.append((sample.name, image, maps))
    if not shown:
        raise ValueError(
            f"One image at least must be readable. Received: {count} of {source.name}, "
            "all bad. Check --data_dir (trainers.check_data says what is wrong)."
        )
    return shown, atlas


def _facts(model, source, num_images):
    facts = {"made on": datetime.date.today().isoformat()}
    if isinstance(model, SlotCon):
        network = model.network(FLAGS.which)
        facts |= {
            "encoder": network.encoder.name,
            "network": FLAGS.which,
            "prototypes (K)": f"{model.num_prototypes:,}",
            "projection (D)": f"{model.projection_dim:,}",
            "steps trained": f"{int(model.step.numpy()):,}",
        }
    else:
        facts |= {"encoder": model.name, "channels": f"{model.output_shape[-1]:,}"}
    facts["images looked at"] = f"{num_images:,} of {source.num_images:,}"
    facts["images from"] = source.name
    if FLAGS.scale != 1.0:
        facts["scale"] = f"{FLAGS.scale:g}"
    return facts


def _add_records(report, folder, run):
    """Scores of a folder of results, and what the run's holds beside its model."""
    report.tables, report.troubles = read_scores(folder)
    if (run / FLAGFILE).is_file():
        lines = (run / FLAGFILE).read_text(errors="replace").splitlines()
        report.flags = "\n".join(x for x in lines if not x.startswith("#"))
    if (run / "history.csv").is_file():
        report.history = read_history(run / "history.csv")


if __name__ == "__main__":
    run_main(main, "trainers.visualize")
