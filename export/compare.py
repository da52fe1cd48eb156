"""How far two exports are apart: features and groups of the same images.

    python -m export.compare served/slotcon/1 served/slotcon/2 --images=photos

Prints the cosine between the pooled features of each image (1 is no drift), and how far
the groups agree: the share of pixels with the same prototype, which means something
for two exports of one run, and the adjusted Rand index, which does not care how
prototypes are numbered. Images that either cannot decode are named and left out.

As a gate, before a version goes to production:

    python -m export.compare OLD NEW --images=photos --max_distance=0.001

ends with status 1 and one line that names the output and the image that is furthest
away, where the features (the length of their difference, as share of the first's) or,
with --max_group_distance, the groups (1 - adjusted Rand index) of an image are further
apart, where one alone decodes it, or where a signature or an output of the first is
missing in the second.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.data.bad_images import printable
from slotcon_tf.extras import needed
from slotcon_tf.images.decoding import BadImage
from slotcon_tf.progress import bar
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting
from slotcon_tf.serving.formats import reason_of
from slotcon_tf.serving.precision import cosines
from slotcon_tf.serving.warmup import outputs_of

from .distances import check
from .extraction_settings import IMAGES, listed_images
from .loading import Signatures, load_version, version_folder
from .sending import ask, served_form


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """Which exports are compared, and on what.

    Example:
        >>> config = CompareConfig(first="served/1", second="served/2", images="photos")
        >>> config.batch_size
        8
    """

    first: str = setting(None, "Folder of a version, or of all, of the one export.")
    second: str = setting(None, "Folder of a version, or of all, of the other.")
    images: str = setting(None, IMAGES)
    batch_size: int = setting(8, "Images at once.", low=1)
    max_distance: float | None = setting(
        None,
        "Fail where the features of an image are further apart: the length of their "
        "difference, as share of the first's. What the first has and the second lacks "
        "fails as well.",
        low=0,
    )
    max_group_distance: float | None = setting(
        None,
        "Fail where its groups are further apart: 1 - adjusted Rand index.",
        low=0,
    )


def compare_exports(config: CompareConfig) -> None:
    """Prints how far two exports are apart.

    Args:
        config: Which, and on what.

    Raises:
        ValueError, OSError: If they or the images cannot be read, or do not fit.
        distances.TooFar: If they are further apart than the settings allow.

    Example:
        >>> config = CompareConfig(first="none/1", second="none/2", images="photos")
        >>> compare_exports(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: Dataset 'folder' needs the folder photos. ...
    """
    places = (config.first, config.second)
    # First what is soon known.
    paths = [str(path) for path in listed_images(config.images).paths]
    first, second = (load_version(path) for path in places)
    found = compare(first, second, paths, config.batch_size)
    print(table(places[0], places[1], found))
    found["missing"] = missing(*(outputs_of(version_folder(p)) for p in places))
    check(found, config.max_distance, config.max_group_distance)


def compare(
    first: Signatures,
    second: Signatures,
    paths: Sequence[str | os.PathLike],
    batch_size: int = 8,
) -> dict[str, Any]:
    """Drift of features and agreement of groups, image by image.

    Args:
        first, second: Of `export.loading.load_version`.
        paths: Of the images.
        batch_size: Images at once.

    Returns:
        Dict of name to float (M,): `cosine`, `distance`, and where both have groups
        `same_prototype` and `rand_index`; `images`, their M paths; `bad`, dict of path
        to reason; `apart`, dict of path to both reasons where one alone decodes it.

    Raises:
        ValueError: If features or masks have different sizes, or no image is good, or
            an export is a detector's.

    Example:
        >>> import tempfile
        >>> def features(data):
        ...     codes = np.zeros(len(data), int)
        ...     pooled = np.ones((len(data), 4))
        ...     return {"pooled": pooled, "ok": codes == 0, "reason": codes}
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jpg"
        >>> path.touch()
        >>> export = {"image_bytes": (features, None)}
        >>> compare(export, export, [path])  # doctest: +ELLIPSIS
        {'cosine': array([1.]), 'distance': array([0.]), 'images': ['.../a.jpg'], ...}
    """
    models = (first, second)
    names = [_of_features(model) for model in models]
    grouped = all("groups" in model for model in models)
    found = {"cosine": [], "distance": []}
    if grouped:
        with needed("evaluation"):
            from sklearn.metrics import adjusted_rand_score
        found |= {"same_prototype": [], "rand_index": []}
    bad, apart, images = {}, {}, []
    for start in bar(range(0, len(paths), batch_size), desc="compare", unit="batch"):
        part = paths[start : start + batch_size]
        sent, content = _sendable(part, bad)
        if not content:
            continue
        a, b = (_ask(m, n, content) for m, n in zip(models, names, strict=True))
        good = a["ok"] & b["ok"]
        for path, *codes in zip(sent, a["reason"], b["reason"], strict=True):
            if not any(codes):
                images.append(printable(path))
                continue
            bad[printable(path)] = reason_of(int(max(codes)))
            if not all(codes):
                one, other = (reason_of(int(code)) for code in codes)
                apart[printable(path)] = (one, other)
        _same_shape(a["pooled"], b["pooled"], "features")
        a, b = a["pooled"][good], b["pooled"][good]
        found["cosine"].extend(cosines(a, b))
        lengths = np.maximum(np.linalg.norm(a, axis=1), 1e-12)
        found["distance"].extend(np.linalg.norm(b - a, axis=1) / lengths)
        if grouped and good.any():
            content = [data for data, ok in zip(content, good, strict=True) if ok]
            a, b = (_ask(model, "groups", content)["assignments"] for model in models)
            _same_shape(a, b, "masks")
            found["same_prototype"].extend((a == b).mean(axis=(1, 2)))
            for one, other in zip(a, b, strict=True):
                score = adjusted_rand_score(one.ravel(), other.ravel())
                found["rand_index"].append(score)
    if not found["cosine"]:
        raise ValueError(
            f"Both must decode one image at least. Received: {len(paths)} paths, "
            f"{len(bad)} of them bad."
        )
    values = {name: np.array(rows) for name, rows in found.items()}
    return {**values, "images": images, "bad": bad, "apart": apart}


def missing(
    first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]
) -> list[str]:
    """What clients of the first version would ask the second for in vain.

    Args:
        first, second: Dict of signature to its outputs.

    Example:
        >>> missing({"embed": ["ok", "pooled"], "groups": ["ok"]}, {"embed": ["ok"]})
        ['embed.pooled', 'groups']
    """
    lost = []
    for name, outputs in first.items():
        kept = set(second.get(name, ()))
        outputs_lost = [f"{name}.{output}" for output in outputs if output not in kept]
        lost += outputs_lost if name in second else [name]
    return lost


def _of_features(model: Signatures) -> str:
    """The signature that gives features of files."""
    for name in ("image_bytes", "embed"):
        if name in model:
            return name
    raise ValueError(
        "Both exports must answer with features of files: image_bytes or embed. "
        f"Received: {', '.join(model)}."
    )


def table(first: str, second: str, found: dict[str, Any]) -> str:
    """What `compare` found, as text.

    Example:
        >>> found = {"cosine": np.ones(2), "bad": {"a.jpg": "a text file"}}
        >>> print(table("one", "two", found))
        one against two, 2 images
                              mean        5%  smallest
        cosine            1.000000  1.000000  1.000000
        left out: a.jpg (a text file)
    """
    lines = [f"{first} against {second}, {len(found['cosine'])} images"]
    lines.append(f"{'':16}{'mean':>10}{'5%':>10}{'smallest':>10}")
    for name, values in found.items():
        if isinstance(values, np.ndarray):
            low = np.quantile(values, 0.05)
            lines.append(
                f"{name:16}{values.mean():10.6f}{low:10.6f}{values.min():10.6f}"
            )
    lines += [f"left out: {path} ({reason})" for path, reason in found["bad"].items()]
    return "\n".join(lines)


def _sendable(
    paths: Sequence[str | os.PathLike], bad: dict[str, str]
) -> tuple[list[str | os.PathLike], list[bytes]]:
    """Paths and bytes of the files that can be sent; the others' reasons go to bad."""
    found = {}
    for path in paths:
        try:
            found[path] = served_form(pathlib.Path(path).read_bytes())
        except BadImage as error:
            bad[printable(path)] = str(error)
    return list(found), list(found.values())


def _ask(
    model: Signatures, name: str, content: Sequence[bytes]
) -> dict[str, np.ndarray]:
    function, _ = model[name]
    answer = ask(lambda data: function(tf.constant(data, tf.string)), content)
    return {key: np.asarray(value) for key, value in answer.items()}


def _same_shape(a: np.ndarray, b: np.ndarray, what: str) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"The {what} of both exports must have the same size. Received: "
            f"{a.shape[1:]} and {b.shape[1:]}."
        )


main = Command(
    "compare",
    CompareConfig,
    compare_exports,
    __doc__,
    positionals=["first", "second"],
)

if __name__ == "__main__":
    main()
