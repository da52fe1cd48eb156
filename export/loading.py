"""Exported versions, loaded into this process."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from slotcon_tf.errors import first_line

Signatures = dict[str, tuple[Callable[..., dict[str, tf.Tensor]], Any]]


def load_version(path: str | os.PathLike) -> Signatures:
    """Signatures of a version's folder, or of the newest in a folder of versions.

    Args:
        path: Of the folder.

    Returns:
        Dict of name to a pair: the function, and what it belongs to, which must live as
        long.

    Raises:
        FileNotFoundError: If there is no SavedModel.
        ValueError: If it is damaged.

    Example:
        >>> import tempfile
        >>> folder, numbers = tempfile.mkdtemp(), tf.TensorSpec([None], name="x")
        >>> half = tf.function(lambda x: {"y": x / 2}, [numbers])
        >>> tf.saved_model.save(tf.Module(), f"{folder}/1", half)
        >>> function, _ = load_version(folder)["serving_default"]
        >>> function(x=tf.constant([3.0]))["y"].numpy().tolist()
        [1.5]
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").exists() and path.is_dir():
        versions = [p for p in path.iterdir() if p.name.isdigit()]
        path = max(versions, key=lambda p: int(p.name), default=path)
    if not (path / "saved_model.pb").exists():
        raise FileNotFoundError(
            f"No SavedModel in {path}. Give the folder of a version, or of all, "
            "that slotcon-export wrote."
        )
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # noqa: BLE001  whatever a damaged one raises
        reason = first_line(error, 300).removesuffix(".")
        raise ValueError(
            f"{path} must be a whole SavedModel. Received: {reason}. Export or "
            "copy it anew."
        ) from error
    return {name: (f, loaded) for name, f in loaded.signatures.items()}
