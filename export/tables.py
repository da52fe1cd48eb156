"""Features as a file: NumPy's .npz or Parquet; see `slotcon_client.tables`."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from slotcon_client.objects import as_text
from slotcon_client.tables import ENDINGS as ENDINGS
from slotcon_client.tables import Table, write
from slotcon_tf.extras import needed


def write_table(
    path: pathlib.Path, names: Sequence[str], columns: dict[str, np.ndarray]
) -> None:
    """Writes a table aside and renames it into place.

    Args:
        path: pathlib.Path with one of `ENDINGS`.
        names: Of the images, for the column or array `path` / `paths`.
        columns: Dict of name to array (M, ...). In Parquet an output of more axes is a
            list, and its shape lies in the field's metadata.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "features.npz"
        >>> write_table(path, ["a.jpg"], {"pooled": np.ones((1, 2), np.float32)})
        >>> np.load(path)["paths"].tolist()
        ['a.jpg']
    """
    check_packages(path)
    write(path, Table.of({"paths": as_text(names), **columns}))


def check_packages(path: str | pathlib.Path) -> None:
    """Asks for what a kind of table needs, before the work is done.

    Raises:
        MissingExtra: If pyarrow is not installed, for Parquet.

    Example:
        >>> check_packages("features.npz")
    """
    if str(path).endswith(".parquet"):
        with needed("serving"):
            import pyarrow  # noqa: F401
