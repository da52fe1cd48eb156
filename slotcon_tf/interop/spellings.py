"""Other libraries' names of a ResNet's tensors, as the original names them.

Each function takes the names that stand below one prefix, and gives a dict of the
original's (torchvision's) name to the one that came. A name that it does not know stays
as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from slotcon_tf.interop.names import DEEP_STEM

_D2_STEM = {
    "stem.conv1": "conv1",
    "stem.conv1.norm": "bn1",
}
_D2_BLOCK = re.compile(r"res([2-5])\.(\d+)\.(conv[123]|shortcut)(\.norm)?")
_NUMBER = re.compile(r"(\d+)\.(.*)")


def from_torch(names: Iterable[str], rank: Callable[[str], int]) -> dict[str, str]:
    """torchvision, timm, mmsegmentation and the original: they differ in a deep stem.

    Args:
        names: Names below the prefix.
        rank: Function of such a name: its tensor's number of axes.

    Example:
        >>> names = ["conv1.0.weight", "conv1.6.weight", "fc.bias"]  # timm's deep stem
        >>> list(from_torch(names, rank=len))
        ['conv1.0.0.weight', 'conv1.2.weight', 'fc.bias']
    """
    renames = {}
    for style in ("timm", "mmsegmentation"):
        theirs = DEEP_STEM[style]
        if f"{theirs[-2]}.weight" in names:
            renames = dict(zip(theirs, DEEP_STEM["original"], strict=True))
    return {_renamed(name, renames.get): name for name in names}


def from_detectron2(names: Iterable[str], rank: Callable[[str], int]) -> dict[str, str]:
    """detectron2: res2 .. res5, shortcut, and norms inside the convolutions.

    Example:
        >>> names = ["res2.0.conv1.norm.weight", "res3.0.shortcut.weight"]
        >>> list(from_detectron2(names, rank=len))
        ['layer1.0.bn1.weight', 'layer2.0.downsample.0.weight']
    """
    return {_renamed(name, _from_d2_module): name for name in names}


def from_numbers(names: Iterable[str], rank: Callable[[str], int]) -> dict[str, str]:
    """The children of a torchvision ResNet in an nn.Sequential, which numbers them.

    What is not counted alike (some leave the pooling out) is still in order: a
    convolution, its norm, four stages.

    Example:
        >>> names = ["0.weight", "1.running_mean"]
        >>> names += [f"{stage}.0.conv1.weight" for stage in (4, 5, 6, 7)]
        >>> list(from_numbers(names, rank=lambda name: 4))[:3]
        ['conv1.weight', 'bn1.running_mean', 'layer1.0.conv1.weight']
    """
    stages = sorted({int(n.split(".")[0]) for n in names if _starts_stage(n)})
    if len(stages) != 4:
        return {name: name for name in names}
    modules = {number: f"layer{i}" for i, number in enumerate(stages, start=1)}
    for name in names:
        found = _NUMBER.fullmatch(name)
        if found and int(found[1]) < stages[0]:
            # The norm is alone in having statistics; a deep stem's are deeper inside.
            if found[2] == "running_mean":
                modules[int(found[1])] = "bn1"
            elif "." in found[2] or (found[2] == "weight" and rank(name) == 4):
                modules.setdefault(int(found[1]), "conv1")

    def original(name):
        found = _NUMBER.fullmatch(name)
        module = modules.get(int(found[1])) if found else None
        return f"{module}.{found[2]}" if module else name

    spelled = {original(name): name for name in names}
    return {new: spelled[old] for new, old in from_torch(list(spelled), rank).items()}


def _starts_stage(name):
    return re.fullmatch(r"\d{1,4}\.0\.conv1\.weight", name) is not None


def _renamed(name, rename):
    """A name with its module's name, all but the last part, replaced where known."""
    module, dot, leaf = name.rpartition(".")
    return f"{rename(module) or module}{dot}{leaf}"


def _from_d2_module(module):
    found = _D2_BLOCK.fullmatch(module)
    if not found:
        return _D2_STEM.get(module)
    stage, block, part, norm = found.groups()
    if part == "shortcut":
        part = f"downsample.{1 if norm else 0}"
    elif norm:
        part = part.replace("conv", "bn")
    return f"layer{int(stage) - 1}.{block}.{part}"
