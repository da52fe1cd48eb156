"""Tables that were written, opened to be read piece by piece."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Self

import numpy as np

from slotcon_client.errors import ExtractionError, needed
from slotcon_client.files import LOCAL, Files
from slotcon_client.tables import IN_PARQUET, Column, Rows, Table

_ROWS_BYTES = 8 * 2**20  # that are read at once, or one row
# CPython 3.11's `ast`, by which NumPy reads headers, fails in several threads at once.
_READING = threading.RLock()
_IN_NPZ = {name: mine for mine, name in IN_PARQUET.items()}


def open_table(path: str | os.PathLike, files: Files = LOCAL) -> Table:
    """A .npz or .parquet file that an extraction wrote.

    Args:
        path: Of the file.
        files: Where it lies.

    Raises:
        ExtractionError: If it is no such file.
        OSError: If it cannot be read.
        MissingPackage: Of a .parquet file, if pyarrow is not installed.

    Example:
        >>> from slotcon_client.tables import write
        >>> write("b.npz", Table.of({"x": np.ones((2, 3), np.float32)}))
        >>> open_table("b.npz").columns["x"].told()
        'float32 [3]'
    """
    path = os.fspath(path)
    try:
        return (_npz if path.endswith(".npz") else _parquet)(path, files)
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        if isinstance(error, ExtractionError):
            raise
        raise ExtractionError(
            f"{path} must be a table of features. Received: {error}. Extract it anew."
        ) from None


def _npz(path, files):
    with files.open(path) as file, zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        about = json.loads(archive.comment) if archive.comment else {}
        headers = {}
        for name in names:
            with archive.open(f"{name}.npy") as member:
                headers[name] = header_of(member)

    @contextlib.contextmanager
    def opened(wanted):
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(files.open(path))
                archive = stack.enter_context(zipfile.ZipFile(file))
                yield {n: stack.enter_context(archive.open(f"{n}.npy")) for n in wanted}
        except zipfile.BadZipFile as error:  # a disk's, found while it is read
            raise ExtractionError(
                f"{path} must be whole. Received: {error}. Extract it anew."
            ) from None

    return of_arrays(headers, opened, about)


def of_arrays(
    headers: Mapping[str, tuple[int, Column]],
    opened: Callable[[Sequence[str]], Any],
    about: dict[str, Any],
) -> Table:
    """A table whose columns are arrays as NumPy writes them, one after the other.

    Args:
        headers: Dict of name to `header_of`.
        opened: Function of names to a context, of a dict of open files.
        about: Of the table.

    Raises:
        ExtractionError: If the columns have other numbers of rows.

    Example:
        >>> of_arrays({}, lambda names: None, {}).rows
        0
    """
    columns = {name: column for name, (_, column) in headers.items()}
    counts = {count for count, _ in headers.values()}
    if len(counts) > 1:
        raise ExtractionError(
            f"All columns must have as many rows. Received: {sorted(counts)}."
        )
    rows = counts.pop() if counts else 0

    def pieces(names: Sequence[str]) -> Iterator[Rows]:
        size = max(1, sum(columns[name].row_bytes for name in names))
        step = max(1, _ROWS_BYTES // size)
        with opened(names) as members:
            for member in members.values():
                header_of(member)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                yield {n: _read(m, columns[n], count) for n, m in members.items()}

    return Table(columns, rows, pieces, about)


def header_of(file: IO[bytes]) -> tuple[int, Column]:
    """Rows and `Column` of an array's file, which is left where the numbers begin.

    Raises:
        ValueError: If it is no such file.

    Example:
        >>> np.save("c.npy", np.ones((2, 3)))
        >>> with open("c.npy", "rb") as file:
        ...     header_of(file)
        (2, Column(dtype=dtype('float64'), shape=(3,)))
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    with _READING:
        shape, fortran, dtype = read(file)
    if fortran or not shape or dtype.hasobject:
        raise ValueError("an array of another layout")
    return shape[0], Column(dtype, shape[1:])


def load(file: Any, mmap_mode: Any = None) -> Any:
    """`np.load`, which several threads may call; of an .npz file, a dict of arrays.

    Args:
        file: Path, or open file.
        mmap_mode: As of `np.load`.

    Raises:
        OSError: If there is no such file.
        ValueError, zipfile.BadZipFile: If it is none of NumPy's, or damaged.

    Example:
        >>> np.save("d.npy", np.ones((2, 3)))
        >>> load("d.npy").shape
        (2, 3)
    """
    with _READING:
        found = np.load(file, mmap_mode)
    return Arrays(found) if isinstance(found, np.lib.npyio.NpzFile) else found


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open .npz file, each read as it is asked for.

    Args:
        opened: What `np.load` gives of it.

    Attributes:
        files: Their names.
        zip: zipfile.ZipFile that they lie in, to be read by one thread.

    Example:
        >>> np.savez("e.npz", x=np.ones(2))
        >>> with load("e.npz") as arrays:
        ...     dict(arrays)
        {'x': array([1., 1.])}
    """

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self.files = list(opened.files)
        self.zip = opened.zip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, name: str) -> np.ndarray:
        with _READING:
            return self._opened[name]


def _read(file, column, count):
    data = file.read(count * column.row_bytes)
    if len(data) < count * column.row_bytes:
        raise ExtractionError("A table must be whole. Received: an array cut short.")
    return np.frombuffer(data, column.dtype).reshape(count, *column.shape)


def _parquet(path, files):
    with needed("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    with files.open(path) as file, pq.ParquetFile(file) as opened:
        schema, rows = opened.schema_arrow, opened.metadata.num_rows
        about = json.loads((schema.metadata or {}).get(b"slotcon", b"{}"))
        columns = {}
        for field in schema:
            shape = (field.metadata or {}).get(b"shape", b"").decode()
            shape = tuple(map(int, filter(None, shape.split(","))))
            kind = field.type.value_type if shape else field.type
            if kind == pa.string():
                dtype = _text(opened, field.name)
            else:
                dtype = np.dtype(kind.to_pandas_dtype())
            columns[_IN_NPZ.get(field.name, field.name)] = Column(dtype, shape)

    def pieces(names: Sequence[str]) -> Iterator[Rows]:
        size = max(1, sum(columns[name].row_bytes for name in names))
        step = max(1, _ROWS_BYTES // size)
        wanted = [IN_PARQUET.get(name, name) for name in names]
        with files.open(path) as file, pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(step, columns=wanted):
                arrays = map(functools.partial(_flat, batch), wanted)
                yield {
                    name: np.asarray(array, columns[name].dtype).reshape(
                        len(batch), *columns[name].shape
                    )
                    for name, array in zip(names, arrays, strict=True)
                }

    return Table(columns, rows, pieces, about)


def _flat(batch, name):
    array = batch.column(batch.schema.get_field_index(name))
    array = array.flatten() if hasattr(array, "flatten") else array
    return array.to_numpy(zero_copy_only=False)


def _text(opened, name):
    """The dtype of a column's longest text."""
    longest = 1
    for batch in opened.iter_batches(columns=[name]):
        texts = _flat(batch, name)
        longest = max([longest, *map(len, texts)])
    return np.dtype(f"<U{longest}")
