"""Weights from other libraries, and for them.

    python -m trainers.convert --from=slotcon_torch ckpt.pth --output=slotcon.keras
    python -m trainers.convert runs/photos --to=detectron2 --output=d2/slotcon.pkl

The input is a file of torch.save or safetensors, a .keras file, a run's work directory
or one of its checkpoints, or a published model's name. No torch is needed, and nothing
that a file names is run. The encoder is found under any prefix; of a teacher and a
student the teacher is taken, and --prefix chooses among others.
Every tensor is reported; one that is not matched on either side is an error.
"""

import pathlib
import sys

from absl import app, flags

from slotcon_tf import SlotCon
from slotcon_tf.images.statistics import IMAGENET, statistics_of
from slotcon_tf.interop import (
    TARGETS,
    CheckpointFileError,
    save_encoder,
    save_slotcon,
)
from slotcon_tf.runs.command_line import PREFIX, run_main
from slotcon_tf.runs.loading import load_trained

FLAGS = flags.FLAGS
_OWN = {"module_name": "trainers.convert"}
_SOURCES = {
    "auto": None,
    "slotcon_torch": (".pth", ".pt", ".tar"),
    "torchvision": (".pth", ".pt"),
    "timm": (".pth", ".pt", ".bin", ".safetensors"),
    "safetensors": (".safetensors",),
    "keras": (".keras",),
}
_PARTS = ("auto", "model", "teacher", "student")
flags.DEFINE_enum("from", "auto", list(_SOURCES), "Who wrote the input.", **_OWN)
flags.DEFINE_enum("to", "keras", TARGETS, "Who will read the output.", **_OWN)
flags.DEFINE_string(
    "output", None, "File to write; for keras a .keras file or a directory.", **_OWN
)
flags.DEFINE_enum(
    "part",
    "auto",
    _PARTS,
    "The whole model, or an encoder; auto: the model where the target takes it, the "
    "teacher elsewhere.",
    **_OWN,
)
flags.DEFINE_integer(
    "output_stride", None, "Of the encoder: 8, 16, 32; no file says.", **_OWN
)
flags.DEFINE_string(*PREFIX, **_OWN)
flags.DEFINE_bool("allow_unmatched", False, "Pass over unmatched tensors.", **_OWN)
_WHOLE = ("keras", "slotcon_torch")


def main(argv):
    if len(argv) != 2 or not FLAGS.output:
        raise app.UsageError("One input and --output=PATH are needed.")
    try:
        for path in convert(argv[1], pathlib.Path(FLAGS.output)):
            print(f"Written: {path}")
    except (CheckpointFileError, ValueError, OSError) as error:
        sys.exit(f"convert: {error}")


def convert(source, output):
    """Converts; returns the paths written."""
    endings, path = _SOURCES[FLAGS["from"].value], pathlib.Path(source)
    if endings and path.is_file() and path.suffix not in endings:
        raise ValueError(
            f"--from={FLAGS['from'].value} reads {', '.join(endings)} files. "
            f"Received: {path}. Leave --from out to go by the content."
        )
    model, report = load_trained(
        source,
        strict=False,
        output_stride=FLAGS.output_stride,
        which="student" if FLAGS.part == "student" else "teacher",
        prefix=FLAGS.prefix,
    )
    if report:
        print(report)
        if not FLAGS.allow_unmatched:
            report.check()
    _tell_statistics(model)
    part = FLAGS.part
    if part == "auto":
        whole = FLAGS.to in _WHOLE and isinstance(model, SlotCon)
        part = "model" if whole else "teacher"
    if part == "model":
        return _write_model(model, output)
    tracked = 0
    if isinstance(model, SlotCon):
        tracked = 2 * int(model.step.numpy())
        model = model.network(part).encoder
    return save_encoder(model, output, FLAGS.to, batches_tracked=tracked)


def _tell_statistics(model):
    """Says what images are normalised with, where files of others do not."""
    own = statistics_of(model)
    if own != IMAGENET and FLAGS.to in ("torchvision", "timm"):
        print(f"Not in the file: images have mean {own.mean} and deviation {own.std}.")


def _write_model(model, output):
    if not isinstance(model, SlotCon):
        raise ValueError(
            "--part=model needs a whole SlotCon model. Received: an encoder alone."
        )
    if FLAGS.to == "slotcon_torch":
        return save_slotcon(model, output)
    if FLAGS.to != "keras":
        raise ValueError(
            f"--to={FLAGS.to} takes an encoder. Set --part=teacher, or student."
        )
    if output.suffix != ".keras":
        return [model.save_to_preset(output)]
    output.parent.mkdir(parents=True, exist_ok=True)
    model.save(output)
    return [output]


if __name__ == "__main__":
    run_main(main, "trainers.convert")
