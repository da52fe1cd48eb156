"""The versions of a model that a local server has loaded."""

import pathlib
import threading

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_status_pb2

_State = get_model_status_pb2.ModelVersionStatus


class NotServed(LookupError):
    """No such version, label or model; the text is TF Serving's."""


class Version:
    """One loaded SavedModel.

    Args:
        path: pathlib.Path of its folder.
    """

    def __init__(self, path):
        self.number = int(path.name)
        self._loaded = tf.saved_model.load(str(path))
        self.signatures = dict(self._loaded.signatures)
        saved = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
        definitions = saved.meta_graphs[0].signature_def
        self.definitions = {name: definitions[name] for name in self.signatures}


class Versions:
    """Keeps the newest version of a folder loaded, and those that have labels.

    Args:
        folder: Of all versions.
        name: Of the model.
        labels: Dict of label to version.
    """

    def __init__(self, folder, name, labels=None):
        self.folder = pathlib.Path(folder)
        self.name = name
        self.labels = dict(labels or {})
        self._loaded = {}
        self._states = {}
        self._lock = threading.Lock()

    def poll(self):
        """Loads what is new and drops what is gone or old.

        A request that has got hold of a version ends with it.
        """
        there = {
            int(path.name): path
            for path in (self.folder.iterdir() if self.folder.is_dir() else ())
            if path.name.isdigit() and (path / "saved_model.pb").exists()
        }
        labelled = set(self.labels.values()) & set(there)
        wanted = {number for number in labelled if self._load(number, there[number])}
        # The newest that can be loaded: a damaged one leaves the one before in place.
        for number in sorted(there, reverse=True):
            if self._load(number, there[number]):
                wanted.add(number)
                break
        with self._lock:
            for number in set(self._loaded) - wanted:
                del self._loaded[number]
                self._states[number] = (_State.END, "")
                logging.info("Dropped version %d", number)

    def _load(self, number, path):
        """Whether a version is loaded; one that has failed is not tried again."""
        with self._lock:
            if number in self._loaded:
                return True
            if self._states.get(number, (None, ""))[1]:
                return False
            self._states[number] = (_State.LOADING, "")
        try:
            version = Version(path)
        except Exception as error:  # whatever a damaged SavedModel raises
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logging.error("Version %d of %s is damaged: %s", number, self.name, text)
            with self._lock:
                self._states[number] = (_State.END, text)
            return False
        with self._lock:
            self._loaded[number] = version
            self._states[number] = (_State.AVAILABLE, "")
        logging.info("Loaded version %d", number)
        return True

    def numbers(self):
        """Loaded versions, in rising order."""
        with self._lock:
            return sorted(self._loaded)

    def states(self):
        """Dict of version to (state, text of an error)."""
        with self._lock:
            return dict(self._states)

    def get(self, spec):
        """The version that a request's ModelSpec asks for.

        Raises:
            NotServed: If there is none.
        """
        asked = f"Specific({spec.name}, {spec.version.value})"
        if spec.WhichOneof("version_choice") is None:
            asked = f"Latest({spec.name})"
        with self._lock:
            if spec.name == self.name and self._loaded:
                number = max(self._loaded)
                if spec.HasField("version"):
                    number = spec.version.value
                elif spec.version_label:
                    asked = f"version label {spec.version_label!r} of {spec.name}"
                    number = self.labels.get(spec.version_label)
                if number in self._loaded:
                    return self._loaded[number]
        raise NotServed(f"Servable not found for request: {asked}")
