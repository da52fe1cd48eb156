"""Reads pickles of tensors without running anything that they name.

Python's own unpickler calls whatever a pickle asks for. This one knows a list of names,
makes plain values of them, and refuses every other name: a checkpoint from anywhere can
be read. It allocates no more than the file holds, since sizes are checked against it.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 1 << 22  # of a pickle; a ResNet-152's has 0.5 MB, and each may cost 200
_SCALARS = (str, int, float, bool, bytes, type(None))


class CheckpointFileError(ValueError):
    """A file of weights cannot be read.

    Example:
        >>> from slotcon_tf.interop import load_encoder
        >>> with open("damaged.pth", "wb") as file:
        ...     _ = file.write(b"no weights")
        >>> load_encoder("damaged.pth")
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: ...
    """


class UnsafePickleError(CheckpointFileError):
    """A pickle asks for something that weights do not need.

    Example:
        >>> import pickle
        >>> import zipfile
        >>> from slotcon_tf.interop import load_encoder
        >>> with zipfile.ZipFile("hostile.pth", "w") as file:
        ...     file.writestr("archive/data.pkl", pickle.dumps({"weight": print}))
        >>> load_encoder("hostile.pth")
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.UnsafePickleError: ...
    """


def one_line(error: object, most: int = 200) -> str:
    """What an error of a library says, in one short line.

    Example:
        >>> one_line(OSError("Unable to open file:\\n  bad header"))
        'Unable to open file: bad header'
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


@dataclass(frozen=True)
class Name:
    """A name that a pickle refers to, such as `torch.FloatStorage`.

    Example:
        >>> str(Name("torch", "FloatStorage"))
        'torch.FloatStorage'
    """

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"[:200]


@dataclass
class Record:
    """An object of which only the fields are kept (argparse.Namespace).

    Example:
        >>> import argparse
        >>> import pickle
        >>> data = pickle.dumps(argparse.Namespace(arch="resnet50"))
        >>> load(data, {}, (), persistent=repr)
        Record(fields={'arch': 'resnet50'})
    """

    fields: dict = field(default_factory=dict)


def _itself(*arguments):
    return arguments


def _record(*_):
    return Record()


# What checkpoints hold besides tensors, as plain values. None of them copies what it is
# given: a pickle could ask for the copy a million times.
PLAIN = {
    Name("collections", "OrderedDict"): lambda: {},
    Name("collections", "defaultdict"): lambda *_: {},
    Name("collections", "Counter"): lambda counts: counts,
    Name("argparse", "Namespace"): lambda: Record(),
    Name("torch", "Size"): lambda sizes: sizes,
    Name("torch", "device"): _itself,
    **{
        Name(place, name): _itself
        for place in ("pathlib", "pathlib._local")
        for name in (
            *("Path", "PosixPath", "PurePath", "PurePosixPath"),
            *("WindowsPath", "PureWindowsPath"),
        )
    },
    # Scores and schedules beside the weights: nothing of them is used.
    **{
        Name(f"numpy{place}", name): _record
        for place in (".core.multiarray", "._core.multiarray")
        for name in ("_reconstruct", "scalar")
    },
    **{Name("numpy", name): _record for name in ("ndarray", "dtype")},
    Name("_codecs", "encode"): _record,
    Name("mmengine.logging.history_buffer", "HistoryBuffer"): _record,
    **{
        Name(f"{library}.utilities.parsing", "AttributeDict"): lambda *_: {}
        for library in ("pytorch_lightning", "lightning.pytorch")
    },
    **{
        Name(place, name): _record
        for place in ("builtins", "__builtin__")
        for name in (
            *("int", "long", "float", "complex", "bool", "str", "bytes", "bytearray"),
            *("list", "dict", "set", "frozenset", "tuple", "slice", "range", "xrange"),
        )
    },
    # Settings beside the weights, as libraries of configurations keep them.
    **{
        Name(place, name): lambda *_: {}
        for place, name in (
            *(("easydict", "EasyDict"), ("addict.addict", "Dict")),
            *(("yacs.config", "CfgNode"), ("fvcore.common.config", "CfgNode")),
            *(("detectron2.config.config", "CfgNode"), ("addict", "Dict")),
            *(("mmcv.utils.config", "ConfigDict"), ("munch", "Munch")),
            *(("mmengine.config.config", "ConfigDict"), ("box.box", "Box")),
            ("vissl.config.attr_dict", "AttrDict"),
            ("vissl.utils.hydra_config", "AttrDict"),
            ("lightning.fabric.utilities.data", "AttributeDict"),
            ("lightning_fabric.utilities.data", "AttributeDict"),
        )
    },
    **{
        Name(place, name): _record
        for place, names in (
            ("types", ("SimpleNamespace",)),
            ("datetime", ("datetime", "date", "time", "timedelta", "timezone")),
            ("omegaconf.dictconfig", ("DictConfig",)),
            ("omegaconf.listconfig", ("ListConfig",)),
            ("omegaconf.base", ("Metadata", "ContainerMetadata")),
            (
                "omegaconf.nodes",
                ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
            ),
            ("typing", ("Any",)),
            ("ml_collections.config_dict.config_dict", ("ConfigDict",)),
        )
        for name in names
    },
    Name("collections", "deque"): lambda *_: [],
}


def load(
    data: bytes,
    functions: Mapping[Name, Callable],
    constants: Collection[Name],
    persistent: Callable[[Any], Any],
) -> Any:
    """The value of a pickle.

    Args:
        data: bytes of the pickle.
        functions: Dict of `Name` to function that takes the place of what is named; in
            addition to `PLAIN`. It gets arguments as they came and must check them.
        constants: Names that may stand by themselves.
        persistent: Function of a persistent id.

    Returns:
        Dicts, lists, tuples, scalars, `Record`s and what the functions return.

    Raises:
        UnsafePickleError: If a name or an operation is not on the list; it is named.
        CheckpointFileError: If the pickle is damaged.

    Example:
        >>> import pickle
        >>> load(pickle.dumps({"epoch": 3}), {}, (), persistent=repr)
        {'epoch': 3}
        >>> load(pickle.dumps({"epoch": print}), {}, (), persistent=repr)
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.UnsafePickleError: A pickle of weights must ...
    """
    if len(data) > MAX_BYTES:
        raise CheckpointFileError(
            f"A pickle of weights must have at most {MAX_BYTES:,} bytes. "
            f"Received: {len(data):,}."
        )
    machine = _Machine({**PLAIN, **functions}, constants, persistent)
    try:
        return machine.run(data)
    except CheckpointFileError:
        raise
    # What the standard library's parser of pickles and plain operations raise.
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CheckpointFileError(f"The pickle is damaged: {error}") from error


def _need(condition, what):
    if not condition:
        raise CheckpointFileError(f"The pickle is damaged: {what} was expected.")


class _Mark:
    pass


class _Machine:
    """The pickle machine: a stack, a memo, and the operations that weights need."""

    def __init__(self, functions, constants, persistent):
        self.functions = functions
        self.constants = constants
        self.persistent = persistent
        self.stack = []
        self.memo = {}

    def run(self, data):
        for operation, argument, _ in pickletools.genops(io.BytesIO(data)):
            name = operation.name
            if name == "STOP":
                _need(len(self.stack) == 1, "one value at the end")
                return self.stack[0]
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise UnsafePickleError(
                    "A pickle of weights must hold tensors and plain values only. "
                    f"Received: the operation {name}."
                )
        raise CheckpointFileError("The pickle is damaged: it has no end.")

    def pop(self):
        _need(self.stack, "a value")
        return self.stack.pop()

    def since_mark(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise CheckpointFileError("The pickle is damaged: a mark was expected.")

    def top(self, kind):
        _need(self.stack and isinstance(self.stack[-1], kind), f"{kind}")
        return self.stack[-1]

    def tuple_of(self, count):
        _need(len(self.stack) >= count, f"{count} values")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def set_items(self, items):
        _need(len(items) % 2 == 0, "a value for every key")
        for key in items[::2]:
            # No tuples: the hash of a nested one may take for ever.
            if not isinstance(key, _SCALARS):
                raise UnsafePickleError(
                    "A pickle of weights must have plain keys in its dicts. Received: "
                    f"a {type(key).__name__}. Save its state dict alone: "
                    "torch.save(model.state_dict(), path)."
                )
        self.top(dict).update(zip(items[::2], items[1::2], strict=True))

    def append(self, items):
        self.top(list).extend(items)

    def unordered(self, items):
        """What a set holds is not used; a set of a pickle's own might have no end."""
        self.stack.append(tuple(items))

    def remember(self, key):
        _need(self.stack, "a value")
        self.memo[key] = self.stack[-1]

    def name(self, module, name):
        found = Name(module, name)
        if found not in self.functions and found not in self.constants:
            raise UnsafePickleError(
                "A pickle of weights must name tensors and plain values only. "
                f"Received: {found}, which is not on the list of what is harmless, "
                "and was not run. If you trust the file, save its state dict alone: "
                "torch.save(model.state_dict(), path)."
            )
        self.stack.append(found)

    def stack_name(self):
        name, module = self.pop(), self.pop()
        _need(isinstance(name, str) and isinstance(module, str), "a name")
        self.name(module, name)

    def call(self):
        arguments, function = self.pop(), self.pop()
        _need(isinstance(arguments, tuple), "a tuple of arguments")
        _need(
            isinstance(function, Name) and function in self.functions,
            "a function that may be called",
        )
        self.stack.append(self.functions[function](*arguments))

    def build(self):
        state = self.pop()
        target = self.top((Record, dict))
        # A NumPy array's is a tuple, and says nothing of weights either.
        if isinstance(target, Record) and isinstance(state, dict):
            _need(not target.fields, "fields once only")
            target.fields = state
        # An OrderedDict's attributes (a state dict's _metadata) say nothing of weights.


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": _Mark,
}
_OPERATIONS = {
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.stack.append(m.top(object)),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "ADDITEMS": lambda m, _: m.append(m.since_mark()),
    "FROZENSET": lambda m, _: m.unordered(m.since_mark()),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "PUT": lambda m, key: m.remember(key),
    "BINPUT": lambda m, key: m.remember(key),
    "LONG_BINPUT": lambda m, key: m.remember(key),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "GET": lambda m, key: m.stack.append(m.memo[key]),
    "BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "GLOBAL": lambda m, pair: m.name(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}
