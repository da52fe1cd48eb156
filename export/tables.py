"""Features of images as a file: NumPy's .npz or Parquet."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from slotcon_tf.extras import needed
from slotcon_tf.files import write_whole

ENDINGS = (".npz", ".parquet")


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
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {"paths": np.array(names, dtype=np.str_), **columns}
        write_whole(path, lambda file: np.savez(file, **arrays))
    else:
        with needed("serving"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        table = _arrow(pa, names, columns)
        write_whole(path, lambda file: pq.write_table(table, file))


def _arrow(pa: Any, names: Sequence[str], columns: dict[str, np.ndarray]) -> Any:
    fields, arrays = [pa.field("path", pa.string())], [pa.array(names, pa.string())]
    for name, values in columns.items():
        metadata = None
        flat = np.ascontiguousarray(values).reshape(-1)
        texts = values.dtype.kind == "U"
        array = pa.array(flat.tolist(), pa.string()) if texts else pa.array(flat)
        if values.ndim > 1:
            size = int(np.prod(values.shape[1:]))
            array = pa.FixedSizeListArray.from_arrays(array, size)
            metadata = {"shape": ",".join(map(str, values.shape[1:]))}
        fields.append(pa.field(name, array.type, metadata=metadata))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
