"""Weights of others into Keras models, with a report of every tensor."""

import dataclasses
import re

from slotcon_tf.interop.architectures import (
    build_resnet,
    resnet_settings,
    slotcon_settings,
)
from slotcon_tf.interop.names import DEEP_STEM, TRACKED, encoder_entries, model_entries
from slotcon_tf.interop.pickles import CheckpointFileError
from slotcon_tf.interop.weights import open_weights
from slotcon_tf.slotcon import SlotCon

# A classifier's, or another method's head on top of the encoder.
_HEAD = re.compile(r"(fc|head|classifier)\d*\.")
# What the original's `args` and `SlotCon` call the same.
_SETTINGS = {
    "teacher_momentum": "teacher_momentum",
    "center_momentum": "center_momentum",
    "student_temp": "student_temperature",
    "teacher_temp": "teacher_temperature",
    "group_loss_weight": "grouping_weight",
}


@dataclasses.dataclass
class Report:
    """What became of every tensor.

    Attributes:
        matched: List of (name in the file, torch's shape, path of the variable).
        left_out: Names in the file that have no place here, on purpose: counters of
            batches, classifiers.
        unused: Other names in the file that nothing here took.
        missing: Torch's names of variables here that the file does not have.
    """

    matched: list = dataclasses.field(default_factory=list)
    left_out: list = dataclasses.field(default_factory=list)
    unused: list = dataclasses.field(default_factory=list)
    missing: list = dataclasses.field(default_factory=list)

    def __str__(self):
        rows = [(n, "x".join(map(str, s)) or "scalar", p) for n, s, p in self.matched]
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        lines = [f"{n:{widths[0]}}  {s:{widths[1]}}  {p}" for n, s, p in rows]
        for title in ("left_out", "unused", "missing"):
            for name in getattr(self, title):
                lines.append(f"{name:{widths[0]}}  {title.replace('_', ' ')}")
        lines.append(
            f"{len(self.matched)} matched, {len(self.left_out)} left out, "
            f"{len(self.unused)} unused, {len(self.missing)} missing"
        )
        return "\n".join(lines)

    def check(self):
        """Raises CheckpointFileError if anything is unused or missing."""
        if self.unused or self.missing:
            shown = [f"{n} (unused)" for n in self.unused]
            shown += [f"{n} (missing)" for n in self.missing]
            more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
            raise CheckpointFileError(
                "Every tensor must be matched on both sides. Received: "
                f"{', '.join(shown[:5])}{more}. Set strict=False "
                "(--allow_unmatched) if that is intended."
            )


def load_entries(entries, tensors):
    """Assigns tensors to variables by their names.

    Args:
        entries: Dict of name to `names.Entry`.
        tensors: Dict of name to tensors of `weights.open_weights`.

    Returns:
        A `Report`.

    Raises:
        CheckpointFileError: If a shape is another; nothing is assigned then.
    """
    report = Report()
    for name, entry in entries.items():
        if name not in tensors:
            report.missing.append(name)
            continue
        shape = tuple(tensors[name].shape)
        if shape != entry.shape:
            raise CheckpointFileError(
                f"{name} must have shape {entry.shape}. Received: {shape}. "
                "Build the model with the sizes of the file."
            )
        report.matched.append((name, shape, entry.variable.path))
    for name in tensors:
        if name not in entries:
            known = name.endswith(TRACKED) or _HEAD.match(name)
            (report.left_out if known else report.unused).append(name)
    for name, _, _ in report.matched:
        entries[name].assign(tensors[name].numpy())
    return report


def load_encoder(path, *, output_stride=None, which="teacher", strict=True):
    """An encoder with the weights of a torch or safetensors file.

    Args:
        path: Of a ResNet named as torchvision, timm, mmsegmentation or the original
            names it, or of the original's full checkpoint.
        output_stride: 32 unless the file says more; no shape tells it.
        which: Of a full checkpoint, "teacher" or "student".
        strict: Whether a tensor that is not matched on either side is an error.

    Returns:
        Tuple of a `slotcon_tf.ResNet` and the `Report`.

    Raises:
        CheckpointFileError: If the file is damaged, hostile, or no such ResNet.
    """
    with open_weights(path) as weights:
        encoder, report = read_encoder(
            weights, output_stride=output_stride, which=which
        )
    if strict:
        report.check()
    return encoder, report


def read_encoder(weights, *, output_stride=None, which="teacher"):
    """As `load_encoder`, of open `Weights`, and unmatched tensors only reported."""
    tensors = encoder_tensors(weights.tensors, which)
    encoder = build_resnet(
        resnet_settings(_shapes(tensors)), output_stride or _output_stride(weights)
    )
    return encoder, load_entries(encoder_entries(encoder), tensors)


def load_slotcon(path, *, output_stride=None, strict=True, **settings):
    """A SlotCon model with the weights of the original's full checkpoint.

    Sizes are read from the shapes, the other settings from the checkpoint's `args`. The
    optimizer's state stays behind; `step` goes on.

    Args:
        path: Of the checkpoint.
        output_stride: 32 unless the file says more; no shape tells it.
        strict: Whether a tensor that is not matched on either side is an error.
        **settings: Arguments of `SlotCon` that replace the checkpoint's.

    Returns:
        Tuple of the model and the `Report`.

    Raises:
        CheckpointFileError: If the file is damaged, hostile, or no full checkpoint.
    """
    with open_weights(path) as weights:
        if not weights.has_groups:
            raise CheckpointFileError(
                f"{path} must be a full checkpoint of SlotCon. Received: "
                f"{len(weights.tensors)} tensors without prototypes. Load it as an "
                "encoder."
            )
        model, report = read_slotcon(weights, output_stride=output_stride, **settings)
    if strict:
        report.check()
    return model, report


def read_slotcon(weights, *, output_stride=None, **settings):
    """As `load_slotcon`, of open `Weights`, and unmatched tensors only reported."""
    shapes = _shapes(weights.tensors)
    encoder = resnet_settings(_below(shapes, "encoder_k."))
    step = _steps_done(weights.tensors)
    model = SlotCon(
        build_resnet(encoder, output_stride or _output_stride(weights)),
        **{
            "total_steps": _total_steps(weights.settings) or max(step, 1),
            **slotcon_settings(shapes),
            **_settings(weights.settings),
            **settings,
        },
    )
    report = load_entries(model_entries(model), weights.tensors)
    model.step.assign(step)
    return model, report


def _shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def encoder_tensors(tensors, which="teacher"):
    """The encoder's among the tensors of a file, in the original's names."""
    side = "encoder_k." if which == "teacher" else "encoder_q."
    if any(name.startswith("encoder_") for name in tensors):
        return _below(tensors, side)
    for style in ("timm", "mmsegmentation"):
        theirs = DEEP_STEM[style]
        if f"{theirs[-2]}.weight" in tensors:
            renames = dict(zip(theirs, DEEP_STEM["original"], strict=True))
            tensors = {_renamed(name, renames): t for name, t in tensors.items()}
    return tensors


def _renamed(name, renames):
    module, _, leaf = name.rpartition(".")
    return f"{renames.get(module, module)}.{leaf}" if module else name


def _below(mapping, prefix):
    return {
        name.removeprefix(prefix): value
        for name, value in mapping.items()
        if name.startswith(prefix)
    }


def _output_stride(weights):
    arch = weights.settings.get("arch")
    return 16 if isinstance(arch, str) and arch.endswith("_16s") else 32


def _settings(args):
    found = {ours: args.get(theirs) for theirs, ours in _SETTINGS.items()}
    return {name: v for name, v in found.items() if isinstance(v, (int, float))}


def _total_steps(args):
    """As the original counts the steps of its teacher's schedule."""
    numbers = [args.get(name) for name in ("num_instances", "batch_size", "epochs")]
    if not all(isinstance(n, int) and 0 < n < 2**48 for n in numbers):
        return None
    images, batch, epochs = numbers
    return int(images / batch * epochs)


def _steps_done(tensors):
    """Each step normalises two batches, and torch counts them."""
    counter = tensors.get(f"encoder_k.bn1.{TRACKED}")
    if counter is None or tuple(counter.shape) != ():
        return 0
    return int(counter.numpy()) // 2
