"""Exported versions, loaded into this process."""

from __future__ import annotations

import contextlib
import hashlib
import json
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
    path = version_folder(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # noqa: BLE001  whatever a damaged one raises
        reason = first_line(error, 300).removesuffix(".")
        raise ValueError(
            f"{path} must be a whole SavedModel. Received: {reason}. Export or "
            "copy it anew."
        ) from error
    return {name: (f, loaded) for name, f in loaded.signatures.items()}


def version_folder(path: str | os.PathLike) -> pathlib.Path:
    """A version's folder: itself, or the newest in a folder of versions.

    Raises:
        FileNotFoundError: If there is no SavedModel.

    Example:
        >>> version_folder("nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No SavedModel in nowhere. ...
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
    return path


def identity_of(path: pathlib.Path) -> dict[str, Any]:
    """What tells a version from others, wherever it lies.

    Args:
        path: Of its folder.

    Returns:
        Dict of `version`, its number; `saved_model`, a digest of the graph and of the
        index of the weights, which has their checksums; and `weights_sha256` where the
        model card tells it.

    Raises:
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "7")
        >>> tf.saved_model.save(tf.Module(), str(path))
        >>> identity_of(path)["version"]
        7
    """
    digest = hashlib.sha256()
    for file in ("saved_model.pb", "variables/variables.index"):
        if (path / file).exists():
            digest.update((path / file).read_bytes())
    number = int(path.name) if path.name.isdigit() else None
    found: dict[str, Any] = {"version": number, "saved_model": digest.hexdigest()}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        card = json.loads((path / "assets.extra" / "model_card.json").read_text())
        found["weights_sha256"] = str(card["weights_sha256"])
    return found
