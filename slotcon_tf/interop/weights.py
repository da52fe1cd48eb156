"""A file of weights as a dict of named tensors, whoever wrote it."""

import contextlib
import dataclasses
import os
import pathlib

from safetensors import SafetensorError, safe_open

from slotcon_tf.interop.pickles import CheckpointFileError, Record
from slotcon_tf.interop.torch_files import StoredTensor, TorchFile

_ZIP, _PICKLE, _LEGACY_TAR = b"PK\x03\x04", b"\x80", 257
_DICTS = ("model", "state_dict", "model_state_dict", "state_dict_ema")
_PREFIXES = ("module.", "backbone.", "model.")


@dataclasses.dataclass
class Weights:
    """Named tensors in torch's layouts.

    Attributes:
        tensors: Dict of name, without `module.`, to what has `shape` and `numpy()`.
        settings: Dict of the settings that the file keeps beside them, or empty.
        path: Of the file.
    """

    tensors: dict
    settings: dict
    path: pathlib.Path

    def __post_init__(self):
        if not self.tensors:
            raise CheckpointFileError(
                f"{self.path} must hold a state dict: names with their tensors. "
                f"Received: none, neither at the top nor under {', '.join(_DICTS)}."
            )
        self.tensors = _plain_names(self.tensors)

    @property
    def has_groups(self):
        """Whether this is the whole method, not an encoder alone."""
        return "grouping_k.slot_embed.weight" in self.tensors


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    file: object
    name: str

    @property
    def shape(self):
        return tuple(self.file.get_slice(self.name).get_shape())

    def numpy(self):
        return self.file.get_tensor(self.name)


@contextlib.contextmanager
def open_weights(path):
    """Opens a torch or safetensors file; its tensors are read while it is open.

    Args:
        path: Of a zip file of torch.save, or a .safetensors file; told by its content.

    Yields:
        `Weights`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointFileError: If it is damaged, hostile (`UnsafePickleError`) or of a
            format that is not read.
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
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(safe_open(path, framework="np"))
                tensors = {name: _SafeTensor(file, name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            except (SafetensorError, OSError, ValueError) as error:
                raise CheckpointFileError(
                    f"{path} must be a whole safetensors file. Received: {error}."
                ) from error
            yield Weights(tensors, metadata, path)
    else:
        raise CheckpointFileError(_other_format(path, head))


def _other_format(path, head):
    if head.startswith(_PICKLE) or head[_LEGACY_TAR:].startswith(b"ustar"):
        return (
            f"{path} must be in the zip format of torch 1.6 and later. Received: the "
            "legacy format, or a bare pickle. Where torch is installed, save it "
            "again: torch.save(torch.load(path, weights_only=True), new_path)."
        )
    size = os.path.getsize(path)
    return (
        f"{path} must be a file of torch.save (.pth, .pt) or a .safetensors file. "
        f"Received: {size:,} bytes of something else, beginning with {head[:8]!r}."
    )


def _from_torch(value, path):
    settings = value.get("args") if isinstance(value, dict) else None
    settings = settings.fields if isinstance(settings, Record) else settings
    for name in _DICTS:
        if isinstance(value, dict) and isinstance(value.get(name), dict):
            value = value[name]
            break
    if not isinstance(value, dict):
        value = {}
    tensors = {
        name: tensor
        for name, tensor in value.items()
        if isinstance(name, str) and isinstance(tensor, StoredTensor)
    }
    return Weights(tensors, settings if isinstance(settings, dict) else {}, path)


def _plain_names(tensors):
    """Without the prefixes that wrappers put in front of every name."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors
