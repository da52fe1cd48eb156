"""Which ResNet, and which SlotCon, a state dict belongs to: read from its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slotcon_tf.encoders.resnet import BACKBONES, ResNet
from slotcon_tf.interop.pickles import CheckpointFileError

_MOST_BLOCKS = 100  # of a stage; a ResNet-152 has 36, and each takes time to build
_DEFAULTS = {
    "width": 64,
    "groups": 1,
    "width_per_group": 64,
    "deep_stem": False,
    "avg_pool_shortcut": False,
    "output_stride": 32,
}


def resnet_settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of `ResNet` that give these shapes.

    Args:
        shapes: Dict of the original's (torchvision's) names to shapes.

    Returns:
        Dict without `output_stride`, which no shape tells.

    Raises:
        CheckpointFileError: If this is no ResNet of the family.

    Example:
        >>> from slotcon_tf import backbone
        >>> from slotcon_tf.interop.names import encoder_entries
        >>> entries = encoder_entries(backbone("resnet10", width=8))
        >>> shapes = {name: entry.shape for name, entry in entries.items()}
        >>> settings = resnet_settings(shapes)
        >>> settings["block"], settings["stage_depths"], settings["width"]
        ('basic', (1, 1, 1, 1), 8)
    """
    try:
        settings = _resnet_settings(shapes)
    except KeyError as error:
        raise CheckpointFileError(
            "The weights must be those of a ResNet, named as torchvision, timm or the "
            f"original names them. Received: no {error} among {len(shapes)} tensors, "
            f"such as {[name[:60] for name in sorted(shapes)[:3]]}."
        ) from error
    sizes = [settings[name] for name in ("width", "groups", "width_per_group")]
    if min(sizes) < 1:
        raise CheckpointFileError(
            "The weights must be those of a ResNet, with one channel at least. "
            f"Received: shapes of width {sizes[0]}, {sizes[1]} groups and "
            f"{sizes[2]} channels for each."
        )
    return settings


def _resnet_settings(shapes):
    deep_stem = "conv1.0.0.weight" in shapes
    stem = _kernel(shapes, "conv1.2.weight" if deep_stem else "conv1.weight")[0]
    bottleneck = "layer1.0.conv3.weight" in shapes
    planes = _kernel(shapes, "layer1.0.conv1.weight")[0]
    groups, width_per_group = 1, 64
    if bottleneck:
        planes = _kernel(shapes, "layer1.0.conv3.weight")[0] // 4
        inner, per_group = _kernel(shapes, "layer1.0.conv2.weight")[:2]
        groups = inner // per_group
        width_per_group = per_group * 64 // max(planes, 1)
    if stem != planes:
        raise CheckpointFileError(
            "The stem must have as many channels as the first stage's planes. "
            f"Received: {stem} and {planes}, which is no ResNet of the family."
        )
    # The first shortcut that changes its size is a stage's first.
    pooled = len(shapes.get("layer2.0.downsample.1.weight", ())) == 4
    return {
        "block": "bottleneck" if bottleneck else "basic",
        "stage_depths": tuple(_depth(shapes, stage) for stage in (1, 2, 3, 4)),
        "width": stem,
        "groups": groups,
        "width_per_group": width_per_group,
        "deep_stem": deep_stem,
        "avg_pool_shortcut": pooled,
    }


def resnet_shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes that a ResNet of these settings has, without building it.

    Args:
        settings: Of `resnet_settings`.

    Returns:
        Dict of the original's names to shapes, in torch's layouts.

    Example:
        >>> settings = dict(block="basic", stage_depths=(1, 1, 1, 1), width=8)
        >>> settings |= dict(groups=1, width_per_group=64)
        >>> settings |= dict(deep_stem=False, avg_pool_shortcut=False)
        >>> shapes = resnet_shapes(settings)
        >>> shapes["conv1.weight"], resnet_settings(shapes) == settings
        ((8, 3, 7, 7), True)
    """
    found = {}

    def conv(name, filters, channels, kernel):
        found[f"{name}.weight"] = (filters, channels, kernel, kernel)

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{leaf}"] = (channels,)

    width, groups = settings["width"], settings["groups"]
    if settings["deep_stem"]:
        for i, channels in enumerate((3, width // 2)):
            conv(f"conv1.{i}.0", width // 2, channels, 3)
            norm(f"conv1.{i}.1", width // 2)
        conv("conv1.2", width, width // 2, 3)
    else:
        conv("conv1", width, 3, 7)
    norm("bn1", width)
    bottleneck = settings["block"] == "bottleneck"
    channels = width
    for stage, depth in enumerate(settings["stage_depths"]):
        planes = width * 2**stage
        inner = planes
        if bottleneck:
            inner = int(planes * settings["width_per_group"] / 64) * groups
        filters = planes * (4 if bottleneck else 1)
        for index in range(depth):
            block = f"layer{stage + 1}.{index}"
            kernels = [(inner, channels, 3), (planes, inner, 3)]
            if bottleneck:
                kernels = [(inner, channels, 1), (inner, inner // groups, 3)]
                kernels.append((filters, inner, 1))
            for i, (outputs, inputs, kernel) in enumerate(kernels, start=1):
                conv(f"{block}.conv{i}", outputs, inputs, kernel)
                norm(f"{block}.bn{i}", outputs)
            if index == 0 and (stage or channels != filters):
                # The pooling takes the first place, also where it pools nothing.
                first = int(settings["avg_pool_shortcut"])
                conv(f"{block}.downsample.{first}", filters, channels, 1)
                norm(f"{block}.downsample.{first + 1}", filters)
            channels = filters
    return found


def _kernel(shapes, name):
    shape = shapes[name]
    if len(shape) != 4 or min(shape) < 1:
        raise CheckpointFileError(
            f"{name} must be a convolution's kernel, of four sizes from 1. "
            f"Received: shape {shape}."
        )
    return shape


def _depth(shapes, stage):
    depth = 0
    while f"layer{stage}.{depth}.conv1.weight" in shapes:
        depth += 1
    if not depth:
        raise KeyError(f"layer{stage}.0.conv1.weight")
    if depth > _MOST_BLOCKS:
        raise CheckpointFileError(
            f"A stage must have {_MOST_BLOCKS} blocks at most. Received: {depth}."
        )
    return depth


def build_resnet(settings: Mapping[str, Any], output_stride: int = 32) -> ResNet:
    """The ResNet of these settings, under the family's name for it, if any.

    Example:
        >>> settings = dict(block="basic", stage_depths=(1, 1, 1, 1), width=64)
        >>> settings |= dict(groups=1, width_per_group=64)
        >>> settings |= dict(deep_stem=False, avg_pool_shortcut=False)
        >>> build_resnet(settings).name
        'resnet10'
    """
    settings = {**settings, "output_stride": output_stride}
    names = [
        name
        for name, config in BACKBONES.items()
        if {**_DEFAULTS, **config} == settings
    ]
    return ResNet(name=names[0] if names else "resnet", **settings)


def slotcon_settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Sizes of a SlotCon model: arguments of `SlotCon`.

    Raises:
        CheckpointFileError: If the shapes are those of no such model.

    Example:
        >>> shapes = {"projector_k.mlp.0.weight": (2048, 512, 1, 1)}
        >>> shapes["grouping_k.slot_embed.weight"] = (1024, 256)
        >>> slotcon_settings(shapes)
        {'num_prototypes': 1024, 'hidden_dim': 2048, 'projection_dim': 256}
    """
    hidden = shapes.get("projector_k.mlp.0.weight", ())
    prototypes = shapes["grouping_k.slot_embed.weight"]
    if not hidden or len(prototypes) != 2 or min(*hidden, *prototypes) < 1:
        raise CheckpointFileError(
            "A full checkpoint must have a projector_k.mlp.0.weight, and "
            "grouping_k.slot_embed.weight of two sizes, all from 1. "
            f"Received: shapes {hidden or 'none'} and {prototypes}."
        )
    return {
        "num_prototypes": prototypes[0],
        "hidden_dim": hidden[0],
        "projection_dim": prototypes[1],
    }
