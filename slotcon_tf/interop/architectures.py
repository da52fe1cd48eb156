"""Which ResNet, and which SlotCon, a state dict belongs to: read from its shapes."""

from slotcon_tf.backbones import BACKBONES, ResNet
from slotcon_tf.interop.pickles import CheckpointFileError

_DEFAULTS = {
    "width": 64,
    "groups": 1,
    "width_per_group": 64,
    "deep_stem": False,
    "avg_pool_shortcut": False,
    "output_stride": 32,
}


def resnet_settings(shapes):
    """Arguments of `ResNet` that give these shapes.

    Args:
        shapes: Dict of the original's (torchvision's) names to shapes.

    Returns:
        Dict without `output_stride`, which no shape tells.

    Raises:
        CheckpointFileError: If this is no ResNet of the family.
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
    return depth


def build_resnet(settings, output_stride=32):
    """The ResNet of these settings, under the family's name for it, if any."""
    settings = {**settings, "output_stride": output_stride}
    names = [
        name
        for name, config in BACKBONES.items()
        if {**_DEFAULTS, **config} == settings
    ]
    return ResNet(name=names[0] if names else "resnet", **settings)


def slotcon_settings(shapes):
    """Sizes of a SlotCon model: arguments of `SlotCon`.

    Raises:
        CheckpointFileError: If the shapes are those of no such model.
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
