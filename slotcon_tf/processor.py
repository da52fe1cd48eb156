"""What the processor can do, and oneDNN, by which TensorFlow makes use of it.

TensorFlow decides about oneDNN when it is imported, and leaves it off on processors
without AVX-512 VNNI and the like, where it is 3 to 10 times faster in training
(tensorflow/tensorflow#54279, #62920). So this is imported before TensorFlow, and
imports nothing of it at the top.
"""

import ctypes
import os
import pathlib
import platform
import sys
import warnings

CPU_INFO = pathlib.Path("/proc/cpuinfo")
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# Features that matter here, by the names that Linux has for them.
_TOLD = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
_TOLD_ARM = ("asimd", "sve", "bf16", "i8mm")
# Of IsProcessorFeaturePresent, in winnt.h.
_WINDOWS = {"avx": 39, "avx2": 40, "avx512f": 41}


def features() -> frozenset[str]:
    """The processor's instruction sets, by Linux's names ("avx2", "avx512_bf16").

    Empty where the system tells none: on macOS, whose TensorFlow has no oneDNN.

    Example:
        >>> sorted(features() & {"avx2", "avx512f"})  # doctest: +ELLIPSIS
        [...]
    """
    if CPU_INFO.exists():
        return frozenset(_field("flags", "Features").split())
    if sys.platform == "win32":
        has = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return frozenset(name for name, number in _WINDOWS.items() if has(number))
    return frozenset()


def _field(*names):
    """The first processor's first line of one of these names, or an empty text."""
    for line in CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def cores() -> int:
    """Cores that this process may run on.

    Example:
        >>> cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def name() -> str:
    """The processor's name and its cores.

    Example:
        >>> name()  # doctest: +ELLIPSIS
        '... cores'
    """
    found = _field("model name") if CPU_INFO.exists() else ""
    return f"{found or platform.processor() or platform.machine()}, {cores()} cores"


def gains_by_onednn() -> bool:
    """Whether TensorFlow trains faster with oneDNN here: x86 from AVX2 on.

    Example:
        >>> gains_by_onednn() <= ("avx2" in features())
        True
    """
    return platform.machine().lower() in ("x86_64", "amd64") and "avx2" in features()


def turn_onednn_on() -> None:
    """Has TensorFlow use oneDNN where that is faster, if nobody has decided yet.

    Warns if TensorFlow was imported before, without it: nothing can be changed then.

    Example:
        >>> turn_onednn_on()  # importing slotcon_tf has done it
    """
    if ONEDNN in os.environ or not gains_by_onednn():
        return
    if "tensorflow" not in sys.modules:
        os.environ[ONEDNN] = "1"
    elif not onednn_is_on():
        warnings.warn(
            "TensorFlow trains several times slower here than it could: it was "
            f"imported without oneDNN. Set {ONEDNN}=1 in the environment, or put "
            "`import slotcon_tf` before `import tensorflow` and `import keras`.",
            RuntimeWarning,
            stacklevel=3,
        )


def onednn_is_on() -> bool:
    """Whether this process's TensorFlow computes with oneDNN; imports TensorFlow.

    Example:
        >>> onednn_is_on() in (True, False)
        True
    """
    # Not public; nothing public tells what TensorFlow decided.
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled

    return IsMklEnabled()


def describe() -> str:
    """Processor, features, oneDNN and threads on one line; imports TensorFlow.

    Example:
        >>> describe()  # doctest: +ELLIPSIS
        '... cores (...); oneDNN ...; ... threads'
    """
    import tensorflow as tf

    own = features()
    told = [name for name in (*_TOLD, *_TOLD_ARM) if name in own]
    state = "on" if onednn_is_on() else "off"
    if os.environ.get(ONEDNN) == "0":
        state += f" ({ONEDNN}=0)"
    threads = tf.config.threading.get_intra_op_parallelism_threads() or cores()
    instructions = " ".join(told) or platform.machine()
    return f"{name()} ({instructions}); oneDNN {state}; {threads} threads"
