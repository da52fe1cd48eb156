"""Exported versions, loaded into this process."""

import pathlib

import tensorflow as tf


def load_version(path):
    """Signatures of a version's folder, or of the newest in a folder of versions.

    Args:
        path: Of the folder.

    Returns:
        Dict of name to a pair: the function, and what it belongs to, which must live as
        long.

    Raises:
        FileNotFoundError: If there is no SavedModel.
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").exists() and path.is_dir():
        versions = [p for p in path.iterdir() if p.name.isdigit()]
        path = max(versions, key=lambda p: int(p.name), default=path)
    if not (path / "saved_model.pb").exists():
        raise FileNotFoundError(
            f"No SavedModel in {path}. Give the folder of a version, or of all, "
            "that export.saved_model wrote."
        )
    loaded = tf.saved_model.load(str(path))
    return {name: (f, loaded) for name, f in loaded.signatures.items()}
