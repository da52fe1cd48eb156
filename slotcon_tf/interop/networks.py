"""The ResNets that a file of weights holds, under whatever names, and which is meant.

A file is searched, not recognised: every prefix under which a ResNet stands, in any of
the libraries' spellings, is a network. Of several the teacher's is taken.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from slotcon_tf.interop.architectures import resnet_settings, resnet_shapes
from slotcon_tf.interop.entries import check_shape
from slotcon_tf.interop.pickles import CheckpointFileError
from slotcon_tf.interop.spellings import from_detectron2, from_numbers, from_torch

_MOST = 64  # networks that are looked at; a file with more is no model's
_SPELLINGS = {
    r"((?:.*\.)?)layer1\.0\.conv1\.weight": from_torch,
    r"((?:.*\.)?)res2\.0\.conv1\.weight": from_detectron2,
    r"((?:.*\.)?)\d{1,4}\.0\.conv1\.weight": from_numbers,
}
# Words of a prefix that say whose network it is: DINO, MoCo, BYOL, timm and others.
_SIDES = {
    "teacher": {
        *("teacher", "ema", "momentum", "target", "key", "k", "averaged", "avg"),
        *("average", "swa", "shadow", "polyak"),
    },
    "student": {"student", "online", "query", "q"},
}


# Parts of a prefix below which numbers are no weights: what an optimizer keeps of each.
_NO_WEIGHTS = {
    *("optimizer", "optimizers", "optim", "optimizer_state", "optimizer_states"),
    *("exp_avg", "exp_avg_sq", "momentum_buffer", "grad", "grads", "gradients"),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder among the tensors of a file.

    Attributes:
        prefix: In front of all of its names: "", or such as `state_dict.backbone.`.
        tensors: Dict of the original's (torchvision's) name to tensor, of all that
            stands below the prefix.
        spelled: Dict of the same name to the one in the file, without the prefix.
        settings: Arguments of `ResNet`, without `output_stride`.

    Example:
        >>> network = Network("state_dict.encoder_k.", {}, {}, {"width": 64})
        >>> network.shown, network.rank("teacher")
        ('state_dict.encoder_k', (0, -1))
    """

    prefix: str
    tensors: dict
    spelled: dict
    settings: dict

    @property
    def shown(self) -> str:
        """The prefix as the setting `prefix` takes it."""
        return self.prefix.rstrip(".") or "."

    def rank(self, which: str) -> tuple[int, int]:
        """Less is better: the side that is wanted, then neither, then the other."""
        return side_rank(self.prefix, which)


def side_rank(prefix: str, which: str) -> tuple[int, int]:
    """Sorts prefixes: those of a side ("teacher", "student") before any others.

    Example:
        >>> prefixes = ["encoder_q.", "backbone.", "encoder_k."]
        >>> sorted(prefixes, key=lambda prefix: side_rank(prefix, "teacher"))
        ['encoder_k.', 'backbone.', 'encoder_q.']
    """
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", prefix)  # encoderK, netTeacher
    words = re.split(r"[^a-z]+", prefix.lower())
    wanted, other = (
        sum(word in _SIDES[side] for word in words)
        for side in (which, *(_SIDES.keys() - {which}))
    )
    return (other, -wanted)


def choose_network(
    tensors: Mapping[str, Any], which: str = "teacher", prefix: str | None = None
) -> tuple[Network, list[Network]]:
    """The ResNet that is meant among the tensors of a file.

    Args:
        tensors: Dict of whole name to tensor.
        which: "teacher" or "student", where the file has both.
        prefix: What the names of the network begin with, or a part of that, whole
            between dots; None or "" where the file may decide.

    Returns:
        Tuple of the `Network` and the list of the others that the file holds.

    Raises:
        CheckpointFileError: If there is none, or several and nothing that says which.

    Example:
        >>> from slotcon_tf import SlotCon, backbone
        >>> from slotcon_tf.interop import save_slotcon
        >>> from slotcon_tf.interop.weights import open_weights
        >>> sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> _ = save_slotcon(model, "slotcon.pth")
        >>> with open_weights("slotcon.pth") as weights:
        ...     chosen, others = choose_network(weights.tensors)
        >>> chosen.shown, [other.shown for other in others]
        ('model.module.encoder_k', ['model.module.encoder_q'])
    """
    found = _find_networks(tensors)
    fitting = [n for n in found if _is_named(n.prefix, prefix)] if prefix else found
    if not fitting:
        raise CheckpointFileError(
            "`prefix` must be in front of a ResNet's names. "
            f"Received: {prefix}, and the file has one under {_listed(found)}."
        )
    best = min(network.rank(which) for network in fitting)
    best = [network for network in fitting if network.rank(which) == best]
    exact = [n for n in best if n.prefix.strip(".") == (prefix or "").strip(".")]
    best = exact if prefix and exact else best
    if len(best) > 1:
        raise CheckpointFileError(
            "The file must hold one encoder, or tell a teacher's from a student's. "
            f"Received: encoders under {_listed(best)}. Choose one with `prefix` "
            "(prefix=)."
        )
    (chosen,) = best
    if which == "student" and not prefix and chosen.rank(which)[0]:
        raise CheckpointFileError(
            f"The file must hold a student's encoder. Received: {_listed(found)} only. "
            "Take the teacher's."
        )
    return chosen, [network for network in found if network is not chosen]


def _find_networks(tensors: Mapping[str, Any]) -> list[Network]:
    """Every ResNet among the tensors, as a list of `Network`, in the file's order.

    Raises:
        CheckpointFileError: If there is none; it says what came nearest.
    """
    found, failures = [], []
    for prefix, spelling in _places(tensors):
        begin = len(prefix)
        below = {n[begin:]: t for n, t in tensors.items() if n.startswith(prefix)}
        spelled = spelling(list(below), lambda name, of=below: len(of[name].shape))
        local = {name: below[old] for name, old in spelled.items()}
        try:
            settings = resnet_settings({n: tuple(t.shape) for n, t in local.items()})
            check_shapes(settings, local)
        except CheckpointFileError as error:
            where = f"Under the prefix {prefix}: " if prefix else ""
            failures.append(f"{where}{error}")
            continue
        # A network that two names lead to is one.
        if not any(network.tensors == local for network in found):
            found.append(Network(prefix, local, spelled, settings))
    if not found and failures:
        raise CheckpointFileError(failures[0])
    if not found:
        shown = [name[:60] for name in sorted(tensors)[:3]]
        raise CheckpointFileError(
            "The weights must be those of a ResNet, named as torchvision, timm or the "
            "original names them, under any prefix. Received: no layer1.0.conv1.weight "
            f"among {len(tensors)} tensors, such as {shown}."
        )
    return found


def check_shapes(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Whether a network can be whole, before it is built, which may take long.

    Args:
        settings: Of `resnet_settings`.
        tensors: Dict of the original's name to tensor. Up to half may be missing: a
            report names those.

    Raises:
        CheckpointFileError: If it cannot.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop.names import encoder_entries
        >>> tensors = encoder_entries(backbone("resnet10", width=8))
        >>> settings = resnet_settings({name: x.shape for name, x in tensors.items()})
        >>> check_shapes(settings, tensors)
        >>> check_shapes(settings, {"conv1.weight": tensors["conv1.weight"]})
        Traceback (most recent call last):
            ...
        slotcon_tf.interop.pickles.CheckpointFileError: The weights must be those of ...
    """
    expected = resnet_shapes(settings)
    missing = [name for name in expected if name not in tensors]
    for name in expected:
        if name in tensors:
            check_shape(name, tuple(tensors[name].shape), expected[name])
    if len(missing) > len(expected) // 2:
        raise CheckpointFileError(
            "The weights must be those of a whole ResNet. Received: "
            f"{len(missing)} of its {len(expected)} tensors are missing, such as "
            f"{missing[0]}."
        )


def _places(tensors):
    """Dict of (prefix, function of `spellings`), in the file's order."""
    places = {}
    for name in tensors:
        for pattern, spelling in _SPELLINGS.items():
            anchor = re.fullmatch(pattern, name)
            if anchor and not _NO_WEIGHTS & {*anchor[1].split(".")}:
                places[anchor[1], spelling] = None
        if len(places) > _MOST:
            raise CheckpointFileError(
                f"A file of weights must hold {_MOST} networks at most. Received: more."
            )
    return places


def _is_named(prefix, part):
    """Whether the part, "." for none, is one of a prefix, whole between its dots."""
    part = part.replace("/", ".").strip(".")
    return f".{part}." in f".{prefix}" if part else not prefix


def _listed(networks):
    return ", ".join(network.shown for network in networks)
