"""Tensors into variables, each checked, with a report of every one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from slotcon_tf.interop.names import TRACKED, Entry
from slotcon_tf.interop.pickles import CheckpointFileError

_KINDS = [np.dtype(k) for k in ("f2", "f4", "f8", ml_dtypes.bfloat16)]
# What belongs to a ResNet itself. All else beside these is a head on top of it.
_OWN = re.compile(r"(conv|bn|norm|layer|stem|stage|block|res|downsample)\w*\.|[^.]*$")
# A classifier on top of an encoder. All else in a whole model belongs to the method.
_CLASSIFIER = re.compile(r"(encoder_[qk]\.)?(fc|head|classifier)\d*\.")


def is_beside_encoder(name: str) -> bool:
    """Whether a tensor in an encoder's file is a head on top, by its name.

    Example:
        >>> names = ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]
        >>> [name for name in names if is_beside_encoder(name)]
        ['fc.weight']
    """
    return not _OWN.match(name)


def is_beside_model(name: str) -> bool:
    """Whether a tensor in a whole model's file is a classifier, by its name.

    Example:
        >>> names = ["center", "encoder_q.fc.weight", "predictor_slot.mlp.0.weight"]
        >>> [name for name in names if is_beside_model(name)]
        ['encoder_q.fc.weight']
    """
    return bool(_CLASSIFIER.match(name))


@dataclasses.dataclass
class Report:
    """What became of every tensor.

    Attributes:
        matched: List of (name in the file, torch's shape, path of the variable).
        left_out: Names in the file that have no place here, on purpose: counters of
            batches, heads, other networks.
        unused: Other names in the file that nothing here took.
        missing: Torch's names of variables here that the file does not have.
        choice: Which of the file's networks was taken, where it was to choose; or "".

    Example:
        >>> report = Report(missing=["conv1.weight"])
        >>> report.check()
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: ...
    """

    matched: list = dataclasses.field(default_factory=list)
    left_out: list = dataclasses.field(default_factory=list)
    unused: list = dataclasses.field(default_factory=list)
    missing: list = dataclasses.field(default_factory=list)
    choice: str = ""

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
        lines += [self.choice] if self.choice else []
        return "\n".join(lines)

    def spell(self, spelled: Mapping[str, str]) -> None:
        """Names tensors as the file does, where that names them otherwise.

        Args:
            spelled: Dict of the name here to the file's.
        """
        self.matched = [(spelled.get(n, n), s, p) for n, s, p in self.matched]
        self.left_out = [spelled.get(name, name) for name in self.left_out]
        self.unused = [spelled.get(name, name) for name in self.unused]

    def leave_out(
        self, names: Iterable[str], prefix: str, but: tuple[str, ...] = ()
    ) -> None:
        """Adds what stands beside a prefix, not below it, to `left_out`.

        Args:
            names: Of all tensors in the file.
            prefix: Of those that were looked at.
            but: Tuple of longer prefixes, whose tensors were not.
        """
        self.left_out += [
            n for n in names if not n.startswith(prefix) or n.startswith(but)
        ]

    def check(self) -> None:
        """Raises CheckpointFileError if anything is unused or missing."""
        if self.unused or self.missing:
            shown = [f"{n} (unused)" for n in self.unused]
            shown += [f"{n} (missing)" for n in self.missing]
            more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
            raise CheckpointFileError(
                "Every tensor must be matched on both sides. Received: "
                f"{', '.join(shown[:5])}{more}. Set strict=False "
                "(allow_unmatched) if that is intended."
            )


def load_entries(
    entries: Mapping[str, Entry],
    tensors: Mapping[str, Any],
    is_beside: Callable[[str], bool],
) -> Report:
    """Assigns tensors to variables by their names.

    Args:
        entries: Dict of name to `names.Entry`.
        tensors: Dict of name to tensors of `weights.open_weights`.
        is_beside: Function of a name that has no entry to whether it is left out on
            purpose: `is_beside_encoder` or `is_beside_model`.

    Returns:
        A `Report`.

    Raises:
        CheckpointFileError: If a shape is another; nothing is assigned then.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop import save_encoder
        >>> from slotcon_tf.interop.names import encoder_entries
        >>> from slotcon_tf.interop.weights import open_weights
        >>> _ = save_encoder(backbone("resnet10", width=8), "encoder.pth", "timm")
        >>> entries = encoder_entries(backbone("resnet10", width=8))
        >>> with open_weights("encoder.pth") as weights:
        ...     report = load_entries(entries, weights.tensors, is_beside_encoder)
        >>> len(report.matched), report.left_out[0], report.missing
        (60, 'bn1.num_batches_tracked', [])
    """
    report = Report()
    for name, entry in entries.items():
        if name not in tensors:
            report.missing.append(name)
            continue
        shape = tuple(tensors[name].shape)
        check_shape(name, shape, entry.shape)
        report.matched.append((name, shape, entry.variable.path))
    for name in tensors:
        if name not in entries:
            known = name.endswith(TRACKED) or is_beside(name)
            (report.left_out if known else report.unused).append(name)
    values = {n: _checked(n, tensors[n]) for n, _, _ in report.matched}
    for name, value in values.items():
        entries[name].assign(value)
    return report


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises CheckpointFileError for a tensor of another shape.

    Example:
        >>> check_shape("layer1.0.conv1.weight", (64, 64, 3, 3), (64, 64, 3, 3))
        >>> check_shape("layer1.0.conv1.weight", (64, 64, 1, 1), (64, 64, 3, 3))
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: layer1.0.conv1.weight must ...
    """
    if shape != expected:
        raise CheckpointFileError(
            f"{name} must have shape {expected}. Received: {shape}. "
            "Build the model with the sizes of the file."
        )


def _checked(name, tensor):
    """The values of a tensor that a network can use."""
    if tensor.dtype is None or np.dtype(tensor.dtype) not in _KINDS:
        raise CheckpointFileError(
            f"{name} must hold float16, bfloat16, float32 or float64 numbers. "
            f"Received: {tensor.dtype or 'another kind, such as float8'}. "
            "Save it as float32."
        )
    with np.errstate(over="ignore"):
        value = np.asarray(tensor.numpy(), np.float32)
    check_values(name, value)
    return value


def check_values(name: str, value: np.ndarray) -> None:
    """Raises CheckpointFileError for what would silently spoil every output.

    Args:
        name: Of a weight, in torch or Keras; a variance is told by it.
        value: Array of its numbers.

    Example:
        >>> check_values("bn1.running_var", np.array([0.5, 2.0]))
        >>> check_values("bn1.running_var", np.array([0.5, -2.0]))
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: bn1.running_var must hold ...
    """
    if not np.all(np.isfinite(value)):
        bad = int(np.sum(~np.isfinite(value)))
        raise CheckpointFileError(
            f"{name} must hold finite float32 numbers. Received: NaN or infinity in "
            f"{bad:,} of {value.size:,}. The training diverged: take an earlier "
            "checkpoint."
        )
    if name.endswith(("running_var", "variance")) and np.any(value < 0):
        raise CheckpointFileError(
            f"{name} must hold variances from 0. Received: {value.min():.4g}. The file "
            "is damaged: fetch it again."
        )
