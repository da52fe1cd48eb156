"""Tables of features, written piece by piece: NumPy's .npz and Parquet."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from slotcon_client.errors import ExtractionError, needed
from slotcon_client.files import LOCAL, Files

ENDINGS = (".npz", ".parquet")
IN_PARQUET = {"paths": "path"}  # of old, a table of .npz has the plural
Rows = dict[str, np.ndarray]  # columns of some rows
_ABOUT = b"slotcon"  # of Parquet's metadata
_PIECE_BYTES = 32 * 2**20  # that are held at once, or one row


class Column(NamedTuple):
    """What a column holds in each row.

    Attributes:
        dtype: Of its numbers, or a text's: "<U" and the longest.
        shape: Of a row.

    Example:
        >>> Column.of(np.zeros((3, 2), np.float32))
        Column(dtype=dtype('float32'), shape=(2,))
    """

    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Column:
        """That of an array with a row per item."""
        return cls(values.dtype, values.shape[1:])

    def joined(self, other: Column, name: str) -> Column:
        """That of both, where texts may be of other lengths.

        Raises:
            ExtractionError: If they are of other kinds.
        """
        texts = self.dtype.kind == other.dtype.kind == "U"
        if self.shape != other.shape or not (texts or self.dtype == other.dtype):
            raise ExtractionError(
                f"All answers must be alike. Received: {name} of {self.told()} and of "
                f"{other.told()}."
            )
        return self._replace(dtype=max(self.dtype, other.dtype, key=_size))

    def told(self) -> str:
        """As messages have it."""
        kind = "text" if self.dtype.kind == "U" else str(self.dtype)
        return f"{kind} {list(self.shape)}" if self.shape else kind

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * int(np.prod(self.shape))


def _size(dtype):
    return dtype.itemsize


def joined(all_columns: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    """Columns of several tables as those of one.

    Raises:
        ExtractionError: If one name means other kinds.

    Example:
        >>> a, b = Column(np.dtype("<U2"), ()), Column(np.dtype("<U5"), ())
        >>> joined([{"reason": a}, {"reason": b}])["reason"].told()
        'text'
    """
    found: dict[str, Column] = {}
    for columns in all_columns:
        for name, column in columns.items():
            known = found.get(name)
            found[name] = column if known is None else known.joined(column, name)
    return found


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns that are read piece by piece, so that no table must fit the memory.

    Attributes:
        columns: Dict of name to `Column`, in the order in which they are written.
        rows: Their number.
        pieces: Function of names of columns that yields their rows, some at a time.
        about: What the rows are of, which the file keeps; plain JSON.

    Example:
        >>> table = Table.of({"x": np.arange(3)})
        >>> table.rows, [piece["x"].tolist() for piece in table.pieces(["x"])]
        (3, [[0, 1, 2]])
    """

    columns: dict[str, Column]
    rows: int
    pieces: Callable[[Sequence[str]], Iterator[Rows]]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> Table:
        """That of arrays with as many rows each."""

        def pieces(names):
            yield {name: columns[name] for name in names}

        rows = len(next(iter(columns.values()), ()))
        return cls({n: Column.of(v) for n, v in columns.items()}, rows, pieces)

    def all_pieces(self) -> Iterator[Rows]:
        """All columns; zeros or empty texts where a piece lacks one."""
        for piece in self.pieces(list(self.columns)):
            count = len(next(iter(piece.values()), ()))
            yield {
                name: piece[name] if name in piece else np.zeros((count, *shape), dtype)
                for name, (dtype, shape) in self.columns.items()
            }


def write(path: str | os.PathLike, table: Table, files: Files = LOCAL) -> None:
    """Writes a table, whole or not at all.

    Args:
        path: With one of `ENDINGS`. A .npz has an array per column, and what the table
            is about in the comment of its archive; in Parquet an output of more axes is
            a list, and its shape lies in the field's metadata.
        table: `Table`.
        files: Where it lies.

    Raises:
        OSError: If it cannot be written.
        MissingPackage: If it is a .parquet file, and pyarrow is not installed.

    Example:
        >>> write("a.npz", Table.of({"paths": np.array(["a.jpg"]), "x": np.ones(1)}))
        >>> np.load("a.npz")["x"].tolist()
        [1.0]
    """
    path = os.fspath(path)
    if path.endswith(".npz"):
        files.write(path, lambda file: _write_npz(file, table))
    else:
        with needed("parquet"):
            import pyarrow  # noqa: F401  before the file is opened
        files.write(path, lambda file: _write_parquet(file, table))


def write_npy(file: BinaryIO, name: str, table: Table) -> None:
    """Writes one column as an array.

    Example:
        >>> with open("x.npy", "wb") as file:
        ...     write_npy(file, "x", Table.of({"x": np.ones(2)}))
        >>> np.load("x.npy").tolist()
        [1.0, 1.0]
    """
    dtype, shape = table.columns[name]
    descr = np.lib.format.dtype_to_descr(dtype)
    about = {"descr": descr, "fortran_order": False, "shape": (table.rows, *shape)}
    np.lib.format.write_array_header_1_0(file, about)
    written = 0
    for piece in table.pieces([name]):
        rows = piece.get(name)
        if rows is None:
            count = len(next(iter(piece.values()), ()))
            rows = np.zeros((count, *shape), dtype)
        file.write(np.ascontiguousarray(rows, dtype).tobytes())
        written += len(rows)
    if written != table.rows:
        raise ExtractionError(
            f"{name} must have {table.rows} rows. Received: {written}. Extract anew."
        )


def _write_npz(file: BinaryIO, table: Table) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in table.columns:
            # As np.savez does it.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_npy(member, name, table)  # pyright: ignore[reportArgumentType]
        archive.comment = json.dumps(table.about).encode() if table.about else b""


def _write_parquet(file: BinaryIO, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([_field(pa, *item) for item in table.columns.items()])
    if table.about:
        schema = schema.with_metadata({_ABOUT: json.dumps(table.about)})
    with pq.ParquetWriter(file, schema) as writer:
        for rows in gathered(table.all_pieces()):
            arrays = [
                _array(pa, values, field.type)
                for values, field in zip(rows.values(), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _field(pa: Any, name: str, column: Column) -> Any:
    texts = column.dtype.kind == "U"
    kind = pa.string() if texts else pa.from_numpy_dtype(column.dtype)
    metadata = None
    if column.shape:
        kind = pa.list_(kind, int(np.prod(column.shape)))
        metadata = {"shape": ",".join(map(str, column.shape))}
    return pa.field(IN_PARQUET.get(name, name), kind, metadata=metadata)


def _array(pa: Any, values: np.ndarray, kind: Any) -> Any:
    flat = np.ascontiguousarray(values).reshape(-1)
    texts = values.dtype.kind == "U"
    array = pa.array(flat.tolist(), pa.string()) if texts else pa.array(flat)
    if values.ndim > 1:
        array = pa.FixedSizeListArray.from_arrays(array, kind.list_size)
    return array


def gathered(pieces: Iterable[Rows], most: int = _PIECE_BYTES) -> Iterator[Rows]:
    """Small pieces as fewer larger ones, of about 32 MiB.

    Args:
        pieces: Of the same columns each.
        most: Bytes.

    Example:
        >>> [len(rows["x"]) for rows in gathered([{"x": np.ones(2)}] * 3)]
        [6]
    """
    held: list[Rows] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += sum(values.nbytes for values in piece.values())
        if size >= most:
            yield _concatenated(held)
            held, size = [], 0
    if held:
        yield _concatenated(held)


def _concatenated(pieces):
    return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
