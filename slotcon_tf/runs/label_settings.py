"""The settings that say which ids in label maps are which classes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from slotcon_tf.runs.settings import Config, setting

_PREFIXED = "class_file|void_ids|label_ids|dataset|data_dir|split|train_split|crop_size"
_NO_VOID = "none"
_CLASS_FILE = (
    "Text file: 'id name' per line; default: classes.txt beside the label maps."
)
_VOID_IDS = (
    "Ids that count nowhere, beside 255; none: not even 255, where label maps hold 0 "
    "and 255 only."
)
_LABEL_IDS = (
    "Ids of the classes in the label maps, in order: 0,255 for masks of 0 and 255."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings(Config):
    """Of a command whose own images are labelled.

    Example:
        >>> label_options(LabelSettings(void_ids=("254",)))["void_ids"]
        ['254']
    """

    class_file: str | None = setting(None, _CLASS_FILE, place=True)
    void_ids: tuple[str, ...] = setting((), _VOID_IDS)
    label_ids: tuple[str, ...] | None = setting(None, _LABEL_IDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalLabelSettings(Config):
    """Of a command that measures labelled images beside its own: eval_class_file ...

    They change no number of a run.

    Example:
        >>> EvalLabelSettings(eval_label_ids=("0", "255")).lines()
        ['--eval_label_ids=0,255', '--eval_void_ids=']
    """

    eval_class_file: str | None = setting(None, _CLASS_FILE, free=True, private=True)
    eval_void_ids: tuple[str, ...] = setting((), _VOID_IDS, free=True)
    eval_label_ids: tuple[str, ...] | None = setting(None, _LABEL_IDS, free=True)


def label_options(config: Any, prefix: str = "") -> dict[str, Any]:
    """Arguments of `slotcon_tf.data.labelled.open_segmented`.

    Args:
        config: With `LabelSettings`, or `EvalLabelSettings` for the prefix "eval_".
        prefix: Of the settings' names.

    Example:
        >>> label_options(EvalLabelSettings(eval_void_ids=("none",)), "eval_")
        {'class_file': None, 'void_ids': [], 'label_ids': None}
    """
    void = list(getattr(config, f"{prefix}void_ids"))
    label_ids = getattr(config, f"{prefix}label_ids")
    return {
        "class_file": getattr(config, f"{prefix}class_file"),
        # Empty, as every run's flagfile has it, says nothing.
        "void_ids": [] if void == [_NO_VOID] else void or None,
        "label_ids": None if label_ids is None else list(label_ids),
    }


def with_prefix(error: Exception, prefix: str) -> Exception:
    """An error of a labelled set whose text names settings as they are prefixed.

    Example:
        >>> error = ValueError("`split` must be a folder. Received: split=a.")
        >>> str(with_prefix(error, "eval_"))
        '`eval_split` must be a folder. Received: eval_split=a.'
    """
    if len(error.args) != 1:
        return error
    text = re.sub(rf"(--|`)({_PREFIXED})\b", rf"\g<1>{prefix}\2", str(error))
    text = re.sub(rf"(?<![\w`\-./\\])({_PREFIXED})=", rf"{prefix}\1=", text)
    return type(error)(text)
