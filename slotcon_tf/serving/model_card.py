"""What an export says of itself, for those who did not make it.

Two files in a version's assets.extra: `model_card.json` for programs, and `README.md`
with the same for people.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.serving.formats import REASONS
from slotcon_tf.serving.warmup import signature_definitions

CARD_FILE = "assets.extra/model_card.json"
README_FILE = "assets.extra/README.md"
_VARIABLES = "variables/variables"


def write_card(folder: pathlib.Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Writes both files of a version, whose SavedModel is there already.

    Args:
        folder: Of the version.
        about: What only its maker knows: `model` (kind, name and the like),
            `trained_on`, `recipe`, `scores`, `input`, `license`, `whitening`; any of
            them may be missing or None.

    Returns:
        Dict of what `model_card.json` holds.

    Example:
        >>> import tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> model = tf.Module()
        >>> model.scale = tf.Variable(2.0)
        >>> numbers = tf.TensorSpec([None], name="x")
        >>> twice = tf.function(lambda x: {"y": model.scale * x}, [numbers])
        >>> model.twice = twice  # what holds the variable
        >>> tf.saved_model.save(model, str(folder), twice)
        >>> card = write_card(folder, {"license": "CC0-1.0"})
        >>> card["signatures"]["serving_default"]["outputs"]
        {'y': {'dtype': 'float32', 'shape': [None]}}
        >>> print((folder / README_FILE).read_text().splitlines()[0])
        # A served model
    """
    card = {
        "model": about.get("model"),
        "trained_on": about.get("trained_on"),
        "recipe": about.get("recipe"),
        "scores": about.get("scores"),
        "input": about.get("input"),
        "whitening": about.get("whitening"),
        "signatures": _signatures(folder),
        "weights_sha256": weights_digest(folder),
        "license": about.get("license"),
        "created": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "versions": _versions(),
    }
    path = folder / CARD_FILE
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(card, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    (folder / README_FILE).write_text(_readme(card), encoding="utf-8")
    return card


def weights_digest(folder: pathlib.Path) -> str:
    """SHA-256 of the numbers in a version, however its variables are named or ordered.

    Of the sorted SHA-256s of each array: its dtype, its shape, and its bytes in little
    order. Two exports of one model have the same; so would a model whose arrays of one
    shape changed places, since it knows no names.

    Args:
        folder: Of a version.

    Example:
        >>> import tempfile
        >>> folder, model = pathlib.Path(tempfile.mkdtemp()), tf.Module()
        >>> model.scale = tf.Variable(2.0)
        >>> tf.saved_model.save(model, str(folder))
        >>> weights_digest(folder)[:8]
        '7593c2d9'
    """
    found = []
    if (folder / f"{_VARIABLES}.index").exists():
        reader = tf.train.load_checkpoint(str(folder / _VARIABLES))
        for name in reader.get_variable_to_shape_map():
            if name.startswith("_CHECKPOINTABLE"):
                continue  # how the objects hang together
            array = np.asarray(reader.get_tensor(name))
            head = f"{array.dtype.name}{list(array.shape)}".encode()
            if array.dtype.byteorder == ">":
                array = array.astype(array.dtype.newbyteorder("<"))
            found.append(hashlib.sha256(head + array.tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()


def input_contract(
    *, edge: str, max_pixels: int, statistics: Any, made: str
) -> dict[str, Any]:
    """What a served model takes, in words and numbers.

    Args:
        edge: Pixels that images are brought to, in words.
        max_pixels: Larger images are not decoded.
        statistics: `slotcon_tf.images.statistics.ImageStatistics`.
        made: How images become as large.

    Example:
        >>> from slotcon_tf.images.statistics import IMAGENET
        >>> found = input_contract(
        ...     edge="224", max_pixels=10**6, statistics=IMAGENET, made="cropped"
        ... )
        >>> found["formats"]
        ['JPEG', 'PNG', 'WebP', 'BMP', 'GIF']
    """
    return {
        "formats": ["JPEG", "PNG", "WebP", "BMP", "GIF"],
        "orientation": "upright by EXIF; the first frame; transparency dropped",
        "size": edge,
        "made": made,
        "max_pixels": max_pixels,
        "normalised_in_the_graph": {
            "mean": list(statistics.mean),
            "std": list(statistics.std),
            "pixel_range": statistics.pixel_range and list(statistics.pixel_range),
        },
        "reasons": dict(enumerate(REASONS)),
    }


def _signatures(folder):
    def tensors(infos):
        return {
            name: {
                "dtype": tf.as_dtype(infos[name].dtype).name,
                "shape": None
                if infos[name].tensor_shape.unknown_rank
                else [d.size if d.size >= 0 else None for d in _sizes(infos[name])],
            }
            for name in sorted(infos)
        }

    return {
        name: {"inputs": tensors(each.inputs), "outputs": tensors(each.outputs)}
        for name, each in signature_definitions(folder).items()
    }


def _sizes(info):
    return info.tensor_shape.dim


def _versions():
    whole = sys.modules[__name__.partition(".")[0]]  # above this room, and there
    return {
        "slotcon_tf": whole.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def _readme(card):
    model = card["model"] or {}
    lines = [f"# {model.get('title') or 'A served model'}", ""]
    lines += [
        f"- {key.replace('_', ' ')}: {_said(value)}" for key, value in model.items()
    ]
    lines += [f"- license: {card['license'] or 'not stated'}"]
    digest = card["weights_sha256"]
    lines += [f"- weights (SHA-256 of the sorted SHA-256s of each array): `{digest}`"]
    lines += [f"- made: {card['created']}, by {_said(card['versions'])}"]
    unknown = {"trained_on": "Not stated."}
    for key, title in (
        ("trained_on", "Trained on"),
        ("recipe", "Recipe"),
        ("scores", "Scores"),
        ("input", "What it takes"),
        ("whitening", "Whitening"),
    ):
        value = card[key]
        if not value and key not in unknown:
            continue
        lines += ["", f"## {title}", ""]
        if not value:
            lines.append(unknown[key])
            continue
        lines += [f"- {name}: {_said(part)}" for name, part in value.items()]
    lines += [
        "",
        "## Signatures",
        "",
        "| signature | in | out |",
        "| --- | --- | --- |",
    ]
    for name, each in card["signatures"].items():
        ways = (_shapes(each[way]) for way in ("inputs", "outputs"))
        lines.append(f"| `{name}` | {' | '.join(ways)} |")
    return "\n".join([*lines, ""])


def _shapes(tensors):
    def size(shape):
        if shape is None:
            return "?"
        return ", ".join("any" if d is None else str(d) for d in shape)

    return ", ".join(
        f"`{name}` {each['dtype']} ({size(each['shape'])})"
        for name, each in tensors.items()
    )


def _said(value):
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
