"""The flags that say which ids in label maps are which classes, for every command."""

from slotcon_tf.runs.label_settings import label_options, with_prefix

__all__ = ["define_label_flags", "label_options", "with_prefix"]


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
