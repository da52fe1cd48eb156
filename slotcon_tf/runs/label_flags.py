"""The flags that say which ids in label maps are which classes, for every command."""

import re

_PREFIXED = "class_file|void_ids|label_ids|dataset|data_dir|split|train_split|crop_size"
_NO_VOID = "none"


def define_label_flags(define, prefix=""):
    """Defines them.

    Args:
        define: A `ModuleFlags`.
        prefix: Of their names, such as "eval_".
    """
    define.string(
        f"{prefix}class_file",
        None,
        "Text file: 'id name' per line; default: classes.txt beside the label maps.",
    )
    define.listed(
        f"{prefix}void_ids",
        [],
        "Ids that count nowhere, beside 255; none: not even 255, where label maps hold "
        "0 and 255 only.",
    )
    define.listed(
        f"{prefix}label_ids",
        None,
        "Ids of the classes in the label maps, in order: 0,255 for masks of 0 and 255.",
    )


def label_options(values, prefix=""):
    """Arguments of `open_segmented`, of the flags as they were given.

    Args:
        values: absl's FLAGS.
        prefix: As it was defined with.
    """
    void = values[f"{prefix}void_ids"].value
    return {
        "class_file": values[f"{prefix}class_file"].value,
        # Empty, as every run's flagfile has it, says nothing.
        "void_ids": [] if void == [_NO_VOID] else void or None,
        "label_ids": values[f"{prefix}label_ids"].value,
    }


def with_prefix(error, prefix):
    """An error of a labelled set whose text names flags as they are prefixed."""
    if len(error.args) != 1:
        return error
    text = re.sub(rf"--({_PREFIXED})\b", rf"--{prefix}\1", str(error))
    return type(error)(text)
