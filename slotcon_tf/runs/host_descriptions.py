"""What the hosts of a run must have in common, and in what they differ."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf import __version__
from slotcon_tf.runs.run_settings import RunSettings
from slotcon_tf.runs.settings import as_text

# Settings that change no number, and yet what the hosts do.
_TOGETHER = ("dry_run",)


def description(
    config: RunSettings, strategy: tf.distribute.Strategy, hosts: int
) -> dict[str, str]:
    """What must be the same on all hosts before there is a model.

    Args:
        config: Of the run; settings that change its numbers count.
        strategy: Of the run.
        hosts: Their number.

    Returns:
        Dict of names to texts.

    Example:
        >>> from slotcon_tf.runs import PretrainConfig
        >>> told = description(PretrainConfig(seed=3), tf.distribute.get_strategy(), 1)
        >>> told["seed"], told["replicas"]
        ('3', '1')
    """
    versions = {
        "slotcon_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    settings = {
        known.flag: as_text(getattr(config, name))
        for name, known in config.settings().items()
        # Where the images lie may differ; what they are is compared by itself.
        if (not known.free or name in _TOGETHER) and not known.place
    }
    replicas = strategy.num_replicas_in_sync // hosts
    return {**settings, **versions, "replicas": str(replicas)}


def differences(said: Sequence[Mapping[str, str]], hosts: Sequence[str]) -> list[str]:
    """In what descriptions differ, in words.

    Args:
        said: Names and values, of each host.
        hosts: The hosts, as they are to be named.

    Example:
        >>> differences([{"seed": "3", "keras": "3.15"}, {"seed": "4"}], ["a", "b"])
        ['seed=3 on a, seed=4 on b', 'keras=3.15 on a, keras=nothing on b']
    """
    found = []
    for name in dict.fromkeys(name for one in said for name in one):
        holders: dict[str, list[str]] = {}
        for host, one in zip(hosts, said, strict=True):
            holders.setdefault(one.get(name, "nothing"), []).append(host)
        if len(holders) > 1:
            told = (f"{name}={v} on {' and '.join(h)}" for v, h in holders.items())
            found.append(", ".join(told))
    return found
