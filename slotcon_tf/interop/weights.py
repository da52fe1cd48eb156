"""A file of weights as a dict of named tensors, whoever wrote it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from slotcon_tf.extras import needed
from slotcon_tf.interop.pickles import CheckpointFileError, Record, one_line
from slotcon_tf.interop.torch_files import OtherTensor, StoredTensor, TorchFile

_ZIP, _PICKLE, _HDF5, _LEGACY_TAR = b"PK\x03\x04", b"\x80", b"\x89HDF", 257
# safetensors' names of the kinds of numbers that are read.
_DTYPES = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{"BF16": np.dtype(ml_dtypes.bfloat16), "BOOL": np.dtype(bool)},
}
_GROUPS = "grouping_k.slot_embed.weight"
# Of a name with the keys of all dicts around it; longer ones nobody has chosen.
_MOST_LETTERS, _MOST_DICTS = 1000, 32


@dataclasses.dataclass
class Weights:
    """Named tensors in torch's layouts.

    Attributes:
        tensors: Dict of whole name, with the keys of the dicts around it and dots
            between, to what has `shape`, `dtype` and `numpy()`.
        settings: Dict of the settings that the file keeps beside them, or empty.
        path: Of the file.

    Example:
        >>> tensors = {"module.grouping_k.slot_embed.weight": np.zeros((4, 8))}
        >>> weights = Weights(tensors, {}, pathlib.Path("slotcon.pth"))
        >>> weights.has_groups, weights.method_prefixes
        (True, ['module.'])
    """

    tensors: dict
    settings: dict
    path: pathlib.Path

    def __post_init__(self):
        if not self.tensors:
            raise CheckpointFileError(
                f"{self.path} must hold a state dict: names with their tensors. "
                "Received: none, at the top or in any dict below."
            )

    @property
    def held(self) -> int:
        """Bytes of the file."""
        return os.path.getsize(self.path)

    @property
    def method_prefixes(self) -> list[str]:
        """In front of the names of each whole model of the method; mostly one or none.

        One without is an encoder alone, or a network of others.
        """
        return [
            name.removesuffix(_GROUPS)
            for name in self.tensors
            if name == _GROUPS or name.endswith(f".{_GROUPS}")
        ]

    @property
    def has_groups(self) -> bool:
        """Whether this is the whole method, not an encoder alone."""
        return bool(self.method_prefixes)


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    file: Any  # of safetensors
    name: str
    shape: tuple
    dtype: np.dtype | None  # None: of a kind that NumPy has not

    def numpy(self):
        return self.file.get_tensor(self.name)


@contextlib.contextmanager
def open_weights(path: str | os.PathLike) -> Iterator[Weights]:
    """Opens a torch or safetensors file; its tensors are read while it is open.

    Args:
        path: Of a zip file of torch.save, or a .safetensors file; told by its content.

    Yields:
        `Weights`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointFileError: If it is damaged, hostile (`UnsafePickleError`) or of a
            format that is not read.

    Example:
        >>> from slotcon_tf.interop.torch_files import write_torch
        >>> kernel = np.ones((8, 3, 7, 7), np.float32)
        >>> write_torch("moco.pth", {"state_dict": {"conv1.weight": kernel}})
        >>> with open_weights("moco.pth") as weights:
        ...     {name: tensor.shape for name, tensor in weights.tensors.items()}
        {'state_dict.conv1.weight': (8, 3, 7, 7)}
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Give the path of a file of weights.")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_ZIP):
        with TorchFile(path) as file:
            yield _from_torch(file.value, path)
    elif head[8:9] == b"{":
        with needed("interop"):
            from safetensors import SafetensorError, safe_open
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(safe_open(path, framework="np"))
                tensors = {
                    _plain(name): _safe_tensor(file, name)
                    for name in file.keys()  # noqa: SIM118
                    if len(name) <= _MOST_LETTERS
                }
                metadata = file.metadata() or {}
            except (SafetensorError, OSError, ValueError) as error:
                raise CheckpointFileError(
                    f"{path} must be a whole safetensors file. Received: "
                    f"{one_line(error)}."
                ) from error
            _check_whole(path)
            yield Weights(tensors, metadata, path)
    else:
        raise CheckpointFileError(_other_format(path, head))


def _check_whole(path):
    """Refuses one of several files that are a model together."""
    if re.search(r"-0*\d+-of-0*([2-9]|\d\d+)\.safetensors$", path.name):
        raise CheckpointFileError(
            f"{path} must be one file of weights. Received: one of several that are a "
            "model together. Update one dict with safetensors' load_file of each, and "
            "save_file it."
        )


def _other_format(path, head):
    if head.startswith(_PICKLE) and path.suffix == ".pkl":
        return (
            f"{path} must be in the zip format of torch 1.6 and later. Received: a "
            "pickle of arrays, as detectron2 keeps its models. Where torch is "
            "installed, save it again: found = pickle.load(open(path, 'rb'))['model']; "
            "torch.save({'model': {k: torch.as_tensor(v) for k, v in found.items()}}, "
            "new_path)."
        )
    if head.startswith(_PICKLE) or head[_LEGACY_TAR:].startswith(b"ustar"):
        return (
            f"{path} must be in the zip format of torch 1.6 and later. Received: the "
            "legacy format, or a bare pickle. Where torch is installed, save it "
            "again: torch.save(torch.load(path, weights_only=True), new_path)."
        )
    if head.startswith(_HDF5):
        return (
            f"{path} must be a file of torch.save (.pth, .pt), a .safetensors or a "
            ".keras file. Received: weights without their model, in HDF5. Build the "
            "model, model.load_weights(path), and model.save() it as a .keras file."
        )
    size = os.path.getsize(path)
    if head.startswith(b"version https://git-lfs"):
        return (
            f"{path} must be a file of weights. Received: a git LFS pointer, not the "
            "file. Run git lfs pull."
        )
    if path.name.endswith(".index.json"):
        return (
            f"{path} must be one file of weights. Received: the index of several. "
            "Where safetensors is installed, put the shards together: update one dict "
            "with load_file of each, and save_file it."
        )
    return (
        f"{path} must be a file of torch.save (.pth, .pt) or a .safetensors file. "
        f"Received: {size:,} bytes of something else, beginning with {head[:8]!r}."
    )


def _safe_tensor(file, name):
    view = file.get_slice(name)
    dtype = _DTYPES.get(view.get_dtype())
    return _SafeTensor(file, name, tuple(view.get_shape()), dtype)


def _from_torch(value, path):
    settings = value.get("args") if isinstance(value, dict) else None
    settings = settings.fields if isinstance(settings, Record) else settings
    settings = settings if isinstance(settings, dict) else {}
    return Weights(_collected(value), settings, path)


def _collected(value):
    """The named tensors in dicts in dicts; one that two keys lead to once only.

    What an optimizer keeps has numbers for names, and is passed over.
    """
    found, seen = {}, set()

    def collect(value, path, depth):
        value = value.fields if isinstance(value, Record) else value
        if not isinstance(value, dict) or id(value) in seen or depth > _MOST_DICTS:
            return
        seen.add(id(value))
        for key, item in value.items():
            if not isinstance(key, str) or len(path) + len(key) > _MOST_LETTERS:
                continue
            name = _plain(path + key)
            if isinstance(item, StoredTensor | OtherTensor):
                found.setdefault(name, item)
            else:
                collect(item, f"{name}.", depth + 1)

    collect(value, "", 0)
    return found


def _plain(name):
    return name.replace("/", ".")
