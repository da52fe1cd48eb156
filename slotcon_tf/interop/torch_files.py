"""torch.save's zip files, read and written without torch."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from slotcon_tf.files import written_whole
from slotcon_tf.interop.pickles import (
    CheckpointFileError,
    Name,
    UnsafePickleError,
    load,
)

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_STORAGES = {np.dtype(v): k for k, v in _DTYPES.items()}
# Kinds of numbers that torch saves as bytes, with the kind beside them.
_FLOAT8 = ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")
_BYTES = "UntypedStorage"
_CONSTANTS = {
    *(Name("torch", name) for name in _DTYPES),
    *(Name("torch", name) for name in ("float32", "float64", "float16", "bfloat16")),
    *(Name("torch", name) for name in ("int64", "int32", "bool", "uint8")),
    *(Name("torch", f"float8_{kind}") for kind in _FLOAT8),
    *(Name("torch", f"uint{bits}") for bits in (16, 32, 64)),
    *(Name("torch", "UntypedStorage"), Name("torch.storage", "UntypedStorage")),
    Name("torch.storage", "TypedStorage"),
}
_MAX_RANK = 8


@contextlib.contextmanager
def _damage_named(path):
    """Turns what zipfile raises on damaged files into one error."""
    try:
        yield
    except CheckpointFileError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
        *(KeyError, ValueError, OverflowError, RuntimeError),  # RuntimeError: encrypted
    ) as error:
        raise CheckpointFileError(
            f"{path} must be a whole zip file of torch.save. Received: {error}. "
            "Fetch it again."
        ) from error


class TorchFile:
    """A zip file of torch.save, open for reading.

    Args:
        path: Of the file.

    Attributes:
        value: What was saved; its tensors are `StoredTensor`s, read on demand.

    Raises:
        UnsafePickleError: If its pickle asks for more than tensors and plain values.
        CheckpointFileError: If it is damaged or of another format.

    Example:
        >>> write_torch("weights.pth", {"epoch": 3, "bias": np.ones(2, np.float32)})
        >>> with TorchFile("weights.pth") as file:
        ...     file.value["epoch"], file.value["bias"].numpy()
        (3, array([1., 1.], dtype=float32))
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        with _damage_named(path), contextlib.ExitStack() as stack:
            self._zip = stack.enter_context(zipfile.ZipFile(path))
            self._check_entries(os.path.getsize(path))
            self.value = load(
                self._read("data.pkl"), self._functions(), _CONSTANTS, self._storage
            )
            stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._zip.close()

    def _check_entries(self, size):
        entries = self._zip.infolist()
        names = [entry.filename for entry in entries]
        pickles = [n for n in names if n.endswith("data.pkl") and n.count("/") <= 1]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise CheckpointFileError(
                f"{self.path} must hold one data.pkl, as torch.save writes it. "
                f"Received: {len(pickles)} among {len(names)} entries."
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            # What would unpack to more than the file is refused.
            raise CheckpointFileError(
                f"{self.path} must not be compressed inside. Received: compressed "
                "entries, which torch.save does not write."
            )
        if any(not 0 <= entry.file_size <= size for entry in entries):
            raise CheckpointFileError(
                f"{self.path} is damaged: an entry is larger than the file."
            )
        if self._prefix + "byteorder" in names and self._read("byteorder") != b"little":
            raise CheckpointFileError(
                f"{self.path} must be written on a little-endian machine."
            )

    def _read(self, name):
        return self._zip.read(self._prefix + name)

    def _functions(self):
        return {
            Name("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            Name("torch._utils", "_rebuild_tensor_v3"): _rebuild_other,
            Name("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }

    def _storage(self, identifier):
        # Nothing of the file is made text before its type is known: the text of a list
        # that holds another twice, and so on, would have no end.
        whole = isinstance(identifier, tuple) and len(identifier) == 5
        kinds = (str, Name, str, str, int)
        if not whole or not all(map(isinstance, identifier, kinds)):
            raise CheckpointFileError(f"{self.path} is damaged: a tensor without data.")
        kind, dtype, key, _, count = identifier
        if kind == "storage" and dtype.name == _BYTES:
            return None  # of a tensor that is not read
        if kind != "storage" or dtype.name not in _DTYPES:
            raise UnsafePickleError(
                f"{self.path} must hold plain tensors. Received: {dtype}."
            )
        entry = self._zip.NameToInfo.get(f"{self._prefix}data/{key}")
        dtype = np.dtype(_DTYPES[dtype.name])
        if entry is None or not 0 <= count <= entry.file_size // dtype.itemsize:
            raise CheckpointFileError(
                f"{self.path} is damaged: a tensor's data are too short."
            )
        return _Storage(self, f"data/{key}", dtype, count)


@dataclass(frozen=True)
class _Storage:
    file: TorchFile
    name: str
    dtype: np.dtype
    count: int

    def array(self):
        with _damage_named(self.file.path):
            data = self.file._read(self.name)
        return np.frombuffer(data, self.dtype, self.count)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a `TorchFile`; its data are read when asked for.

    Attributes:
        shape: Tuple.
        dtype: Of NumPy.

    Example:
        >>> write_torch("weights.pth", {"kernel": np.ones((3, 2))})
        >>> with TorchFile("weights.pth") as file:
        ...     tensor = file.value["kernel"]
        ...     tensor.shape, tensor.dtype, tensor.numpy().sum()
        ((3, 2), dtype('float64'), np.float64(6.0))
    """

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    @property
    def dtype(self) -> np.dtype | None:
        return self.storage.dtype

    def numpy(self) -> np.ndarray:
        """The tensor as an array, which must not be written to."""
        flat = self.storage.array()[self.offset :]
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(
            flat, self.shape, strides, writeable=False
        )


@dataclass(frozen=True)
class OtherTensor:
    """A tensor of numbers that are not read, such as float8; only its shape is known.

    Attributes:
        shape: Tuple.
        dtype: None.

    Example:
        >>> tensor = OtherTensor((64, 3, 7, 7))
        >>> tensor.shape, tensor.dtype
        ((64, 3, 7, 7), None)
    """

    shape: tuple
    dtype: None = None


def _rebuild_other(storage, offset, shape, *_):
    """What torch._utils._rebuild_tensor_v3 says, of tensors that are not read."""
    if not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
        raise CheckpointFileError("The file is damaged: a tensor must have a shape.")
    return OtherTensor(shape)


def _rebuild(storage, offset, shape, strides, *_):
    """What torch._utils._rebuild_tensor_v2 says, with every number checked."""
    good = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_RANK
        and all(type(n) is int and 0 <= n < 2**48 for n in (offset, *shape, *strides))
    )
    # No element may lie outside, and none may be there twice: an expanded tensor could
    # be of any size.
    if good and math.prod(shape):
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        good = last < storage.count and math.prod(shape) <= storage.count
    if not good:
        raise CheckpointFileError(
            "The file is damaged: a tensor must lie inside its data, each number once."
        )
    return StoredTensor(storage, offset, shape, strides)


def write_torch(path: str | os.PathLike, value: Any) -> None:
    """Writes what torch.load reads, with `weights_only=True` too.

    Args:
        path: Of the file.
        value: Dict of str to NumPy arrays, scalars, str, and such dicts.

    Example:
        >>> write_torch("model.pth", {"state_dict": {"bias": np.zeros(4, np.float32)}})
        >>> with TorchFile("model.pth") as file:
        ...     file.value["state_dict"]["bias"].shape
        (4,)
    """
    arrays = []
    body = b"\x80\x02" + _pickled(value, arrays) + b"."
    with (
        written_whole(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as file,
    ):
        file.writestr("archive/data.pkl", body)
        file.writestr("archive/byteorder", "little")
        for index, array in enumerate(arrays):
            file.writestr(f"archive/data/{index}", array.tobytes())
        file.writestr("archive/version", "3\n")


def _pickled(value, arrays):
    """Operations of protocol 2 that leave a value on the stack."""
    if isinstance(value, dict):
        items = [_pickled(k, arrays) + _pickled(v, arrays) for k, v in value.items()]
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return _pickled_tensor(value, len(arrays) - 1)
    # Plain values, without the protocol's two bytes in front and the stop behind.
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 2)
    pickler.fast = True  # no memo, which the parts would share
    pickler.dump(value)
    return out.getvalue()[2:-1]


def _pickled_tensor(array, index):
    storage = b"ctorch\n" + _STORAGES[array.dtype].encode() + b"\n"
    identifier = _text("storage") + storage + _text(str(index)) + _text("cpu")
    identifier = b"(" + identifier + _number(array.size) + b"tQ"
    strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    shape = b"(" + b"".join(map(_number, array.shape)) + b"t"
    strides = b"(" + b"".join(map(_number, strides)) + b"t"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = identifier + _number(0) + shape + strides + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _text(text):
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(number):
    # LONG1: any size up to 255 bytes, signed.
    data = int(number).to_bytes(
        int(number).bit_length() // 8 + 1, "little", signed=True
    )
    return b"\x8a" + bytes([len(data)]) + data
