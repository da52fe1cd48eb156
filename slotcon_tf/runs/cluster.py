"""Who trains together: the hosts that TF_CONFIG names."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Self

_KINDS = ("chief", "worker")  # TensorFlow's order: the first of all leads


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts of one run, in TensorFlow's order; a host is a process.

    Attributes:
        names: Of each, "chief" or "worker 3".
        addresses: HOST:PORT of each.
        index: Of this process among them.

    Example:
        >>> two = Cluster(("worker 0", "worker 1"), ("one:9000", "two:9000"), 1)
        >>> two.told(0)
        'worker 0 (one:9000)'
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int

    @classmethod
    def from_environment(cls) -> Self | None:
        """What TF_CONFIG says, or None where it names no host or one alone.

        Raises:
            ValueError: If it is no cluster, or this process is not one of it.
        """
        config = _config()
        hosts = _hosts(config)
        if len(hosts) < 2:
            return None
        names = tuple(hosts)
        task = config.get("task")
        task = task if isinstance(task, dict) else {}
        own = _name(task.get("type"), task.get("index"))
        if own not in hosts:
            raise ValueError(
                "TF_CONFIG's task must be one of its cluster: "
                f"{', '.join(names)}. Received: task={json.dumps(config.get('task'))}. "
                'Set "task": {"type": "worker", "index": N}, another N on every host.'
            )
        return cls(names, tuple(hosts.values()), names.index(own))

    def told(self, index: int) -> str:
        """A host as messages name it."""
        return f"{self.names[index]} ({self.addresses[index]})"

    def place(self, index: int) -> tuple[str, int]:
        """Host name and port of a host; "[::1]:9000" is written so for IPv6."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)


def num_workers() -> int:
    """Hosts that TF_CONFIG names, the chief included; 0 without it.

    Raises:
        ValueError: If TF_CONFIG is no JSON object, or names no addresses.

    Example:
        >>> num_workers() if "TF_CONFIG" not in os.environ else 0
        0
    """
    return len(_hosts(_config()))


def _config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"TF_CONFIG must be a JSON object. Received: {text!r}.")
    return config


def _hosts(config: dict[str, Any]) -> dict[str, str]:
    """Name to address."""
    cluster = config.get("cluster") or {}
    found = {}
    try:
        for kind in _KINDS:
            for index, address in enumerate(cluster.get(kind, ())):
                host, _, port = address.rpartition(":")
                if not host or not 0 < int(port) < 65536:
                    raise ValueError(address)
                found[_name(kind, index)] = address
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "TF_CONFIG's cluster must be lists of HOST:PORT. Received: "
            f'{json.dumps(cluster)}. Write {{"worker": ["one:9000", "two:9000"]}}.'
        ) from error
    if len(set(found.values())) < len(found):
        raise ValueError(
            "TF_CONFIG must give every host an address of its own. Received: "
            f"{', '.join(found.values())}."
        )
    return found


def _name(kind: Any, index: Any) -> str:
    return "chief" if kind == "chief" else f"{kind} {index}"
