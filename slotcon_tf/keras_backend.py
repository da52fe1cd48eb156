"""Which backend Keras computes with: TensorFlow, or nothing here works."""

import json
import os
import pathlib
import sys

# Packages whose modules are commands.
_COMMANDS = ("benchmarks", "export", "slotcon_tf", "trainers")


def need_tensorflow() -> None:
    """Refuses another backend, before Keras imports it.

    Raises:
        SystemExit: Of a command of this project, which ends in one line.
        ImportError: If Keras is set to something else, in the environment or its file.

    Example:
        >>> need_tensorflow()  # importing slotcon_tf has done it
    """
    name, where = _chosen()
    if name != "tensorflow":
        text = (
            "slotcon_tf needs Keras on TensorFlow. "
            f"Received: the backend {name!r}, from {where}. "
            "Set KERAS_BACKEND=tensorflow in the environment before Keras is imported."
        )
        if _is_command():
            sys.exit(text)
        raise ImportError(text, name="keras")


def _is_command() -> bool:
    """Whether the process is `python -m trainers.NAME`, or `slotcon-NAME`."""
    program = sys.argv[0] if sys.argv else ""
    if program != "-m":  # what Python looks for a module under
        return pathlib.Path(program).name.startswith("slotcon-")
    words = [*sys.orig_argv, ""]
    module = words[words.index("-m") + 1] if "-m" in words else ""
    return module.partition(".")[0] in _COMMANDS


def _chosen():
    """The backend's name, and what chose it; the environment wins, as in Keras."""
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend(), "Keras, imported before"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment's KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    file = pathlib.Path(home) / "keras.json"
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError):
        settings = {}  # Keras goes on without it, too
    if not isinstance(settings, dict):
        settings = {}
    return settings.get("backend", "tensorflow"), str(file)
