"""Runs: what lasts from a command to its results, and survives a kill.

Example:
    ```python
    from slotcon_tf.runs import PretrainConfig, pretrain

    run = pretrain(PretrainConfig.from_recipe("small", data_dir="photos"))
    found = run.model.slots(images)
    ```
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from slotcon_tf.runs.finetune_config import FinetuneConfig as FinetuneConfig
    from slotcon_tf.runs.finetuning import finetune as finetune
    from slotcon_tf.runs.pretrain_config import PretrainConfig as PretrainConfig
    from slotcon_tf.runs.pretraining import pretrain as pretrain
    from slotcon_tf.runs.signals import RunStopped as RunStopped

# Imported where they are asked for: most of what is here needs none of them.
_WHERE = {
    "FinetuneConfig": "finetune_config",
    "PretrainConfig": "pretrain_config",
    "RunStopped": "signals",
    "finetune": "finetuning",
    "pretrain": "pretraining",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> typing.Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_WHERE[name]}")
    return getattr(module, name)
