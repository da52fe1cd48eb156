"""What goes along with the steps of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from slotcon_tf.runs.lock import check_held
from slotcon_tf.runs.strategy import any_worker
from slotcon_tf.training.auxiliaries import Auxiliary
from slotcon_tf.training.callbacks import (
    CALLBACK,
    SIGNAL,
    Checkpointing,
    Throughput,
)

if TYPE_CHECKING:
    from slotcon_tf.runs.run import Run


def training_callbacks(
    run: Run, stop: Callable[[], bool]
) -> list[keras.callbacks.Callback]:
    """The callbacks of a whole training, in their order.

    An epoch's checkpoint comes before all that may fail or take long.

    Args:
        run: On a host that does not write, what it does not need is left out.
        stop: Whether this process is asked to stop.

    Example:
        >>> training_callbacks(run, stop=lambda: False)  # doctest: +SKIP
        [...]
    """
    anyone = any_worker(run.strategy)

    def stopped_by() -> str:
        """A signal or a callback may reach one host; all must stop at one step."""
        if not anyone(stop() or run.model.stop_training):
            return ""
        return SIGNAL if anyone(stop()) else CALLBACK

    checkpointing = Checkpointing(
        run.save if run.chief else lambda: "`workdir` by the first host",
        epochs=run.epochs,
        every_epochs=run.checkpoint_epochs,
        every_steps=run.config.checkpoint_steps,
        every_minutes=run.config.checkpoint_minutes,
        stop_requested=stopped_by,
    )

    def note(epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch's row, for its checkpoint; ends a run that has lost its lock."""
        check_held(run.workdir)
        run.history.note(epoch, logs)

    last = keras.callbacks.LambdaCallback(on_epoch_end=checkpointing.after_others)
    shared = run.of_all_hosts(lambda: anyone(stop()))
    if not run.chief:
        return [run.guard(), checkpointing, *shared, last]
    board = str(run.workdir / "tensorboard")
    auxiliaries = {
        **run.monitors(board),
        "history": run.history,
        "TensorBoard": keras.callbacks.TensorBoard(board, write_graph=False),
        **run.user_callbacks.made(),
        **run.pictures(board),
    }
    return [
        Throughput(run.config.batch_size),
        run.guard(),
        keras.callbacks.LambdaCallback(on_epoch_end=note),
        checkpointing,
        *shared,
        *(Auxiliary(*pair, run.troubles) for pair in auxiliaries.items()),
        last,
    ]
