"""What may fail while a model is trained, without ending its training."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import keras
from absl import logging

from slotcon_tf.errors import first_line
from slotcon_tf.training.callbacks import Interrupted, NonFiniteError

_LETTERS = 300  # of an error, in a warning


class Troubles:
    """The record of auxiliaries that failed: each is warned of, none ends the run.

    The same auxiliary is warned of once in an epoch.

    Args:
        fatal: Errors that are let through, beside `Interrupted` and `NonFiniteError`.

    Example:
        >>> troubles = Troubles()
        >>> for epoch in (0, 1, 4):
        ...     with troubles.of("evaluation", epoch):
        ...         raise OSError("No space left on device")
        >>> with troubles.of("export"):
        ...     pass
        >>> troubles.summary()
        'evaluation (epochs 1-2, 5)'
    """

    def __init__(self, fatal: tuple[type[BaseException], ...] = ()) -> None:
        self.fatal = (Interrupted, NonFiniteError, *fatal)
        self._epochs: dict[str, dict[int | None, None]] = {}

    @contextlib.contextmanager
    def of(self, name: str, epoch: int | None = None) -> Iterator[None]:
        """Context in which errors of an auxiliary are noted, and end there.

        Args:
            name: Of the auxiliary, as the warning has it.
            epoch: From 0; None where there is none.
        """
        try:
            yield
        except self.fatal:
            raise
        except Exception as error:
            self.note(name, epoch, error)

    def note(self, name: str, epoch: int | None, error: Exception) -> None:
        """Records a failure, and warns of the first one in an epoch."""
        known = self._epochs.setdefault(name, {})
        if epoch in known:
            return
        known[epoch] = None
        what = _what(error)
        if epoch is None:
            logging.warning("%s failed: %s.", name, what)
        else:
            when = _in_words([epoch])
            logging.warning("%s failed in %s: %s. Training goes on.", name, when, what)
        logging.debug("Of %s:", name, exc_info=error)

    def failed(self, name: str) -> bool:
        """Whether an auxiliary has failed at any time."""
        return name in self._epochs

    def summary(self) -> str:
        """The names of all that failed, with their epochs; '' for none."""
        parts = []
        for name, epochs in self._epochs.items():
            known = [epoch for epoch in epochs if epoch is not None]
            parts.append(f"{name} ({_in_words(known)})" if known else name)
        return ", ".join(parts)


class Auxiliary(keras.callbacks.Callback):
    """A callback whose errors are warned of, and end nothing.

    Args:
        name: Of the callback, as a warning has it.
        callback: Any Keras callback.
        troubles: Where its failures are noted.

    Example:
        >>> def fails(epoch, logs):
        ...     raise OSError("The tracker is away.")
        >>> callback = keras.callbacks.LambdaCallback(on_epoch_end=fails)
        >>> guarded = Auxiliary("tracker", callback, troubles := Troubles())
        >>> guarded.on_epoch_end(2, {})
        >>> troubles.summary()
        'tracker (epoch 3)'
    """

    def __init__(
        self, name: str, callback: keras.callbacks.Callback, troubles: Troubles
    ) -> None:
        super().__init__()
        self.name = name
        self.callback = callback
        self.troubles = troubles
        self._epoch: int | None = None

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        self._call("set_params", params)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._call("set_model", model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._epoch = None
        self._call("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._call("on_epoch_end", epoch, logs)

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._call("on_train_batch_begin", batch, logs)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._call("on_train_batch_end", batch, logs)

    def _call(self, hook: str, *given: Any) -> None:
        with self.troubles.of(self.name, self._epoch):
            getattr(self.callback, hook)(*given)


def _what(error: Exception) -> str:
    kind, text = type(error).__name__, first_line(error, _LETTERS)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return text if text == kind else f"{kind}: {text.rstrip('.')}"


def _in_words(epochs: list[int]) -> str:
    """Epochs counted from 1, those in a row together."""
    rows = itertools.groupby(enumerate(sorted(epochs)), lambda pair: pair[1] - pair[0])
    parts = []
    for _, row in rows:
        first, *rest = [epoch + 1 for _, epoch in row]
        parts.append(f"{first}-{rest[-1]}" if rest else str(first))
    return f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(parts)}"
