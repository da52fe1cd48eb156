"""The sections of a report: each says how it is read, then shows it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

from slotcon_tf.visualize.charts import grouped_curves, line_chart, usage_chart
from slotcon_tf.visualize.colors import label_colors
from slotcon_tf.visualize.html import (
    Pictures,
    chip,
    escaped,
    figure,
    folded,
    paragraph,
    section,
    table,
)
from slotcon_tf.visualize.maps import FeatureColors, ImageMaps, groups_at, smooth
from slotcon_tf.visualize.overlays import fit_edge, numbered_overlay, spotlight
from slotcon_tf.visualize.prototypes import PrototypeAtlas
from slotcon_tf.visualize.scores import ScoreTable

NEAREST = 5  # images per prototype
_EDGE, _SMALL_EDGE, _LEAST_EDGE = 640, 400, 320  # px, longer edge on the page
_FULL_SIZE = 24  # images up to which the page shows them at _EDGE


def page_edge(num_images: int) -> int:
    """Longer edge of photographs on the page, in pixels: the file stays below 15 MB.

    Example:
        >>> page_edge(12), page_edge(96)
        (640, 320)
    """
    return int(max(160, _EDGE * min(1.0, (_FULL_SIZE / num_images) ** 0.5)))


def scores_section(tables: Sequence[ScoreTable], troubles: Sequence[str]) -> str:
    """Tables of `read_scores`.

    Example:
        >>> found = ScoreTable("groups", ["score", "trained"], [["nmi", "0.4"]], [], {})
        >>> text = scores_section([found], ["b.json is no file of scores: empty"])
        >>> "<td>0.4</td>" in text, "b.json is no file" in text
        (True, True)
    """
    parts = []
    for found in tables:
        parts.append(f"<h3>{escaped(found.title)}</h3>")
        parts.append(table(found.header, found.rows))
        if found.classes:
            classes = table(["class", *found.columns], found.classes)
            title = f"The scores of {len(found.classes)} classes"
            parts.append(folded(title, classes))
        if found.settings:
            settings = table(["setting", "value"], found.settings.items())
            parts.append(folded("Settings", settings))
    parts += [paragraph(text, "note") for text in troubles]
    help_text = "What the network can do, on labelled images."
    if any("untrained" in found.header for found in tables):
        help_text = (
            "What the network could do before training and after it, on labelled "
            "images."
        )
    if any("(" in cell for found in tables for row in found.rows for cell in row[1:]):
        help_text += (
            " In brackets: the confidence interval; a difference whose interval holds "
            "0 may be chance."
        )
    return section("scores", "Scores", help_text, "".join(parts))


def curves_section(
    history: tuple[np.ndarray, dict[str, np.ndarray]], pictures: Pictures
) -> str:
    """Small multiples of a history's columns.

    Args:
        history: Tuple of `read_history`.
        pictures: `Pictures`.

    Example:
        >>> history = (np.array([1, 2]), {"loss": np.array([2.5, 2.0])})
        >>> text = curves_section(history, Pictures())
        >>> text.count("<svg"), "At the end: 2." in text
        (1, True)
    """
    epochs, columns = history
    parts = []
    for title, curves in grouped_curves(columns).items():
        charts = []
        for curve in curves:
            drawing = line_chart(epochs, curve.lines, curve.title)
            last = ", ".join(
                f"{name} {_short(values[np.isfinite(values)][-1])}"
                for name, values in curve.lines.items()
            ).removeprefix("training " if len(curve.lines) == 1 else "")
            alt = f"{curve.title} over {len(epochs)} epochs; at the end: {last}"
            charts.append(
                figure(
                    pictures.chart(f"curve_{curve.name}", drawing, alt),
                    escaped(f"{curve.help} At the end: {last}.".strip()),
                )
            )
        parts.append(f'<h3>{title}</h3><div class="charts">{"".join(charts)}</div>')
    help_text = "One value per epoch. Healthy training lowers the losses"
    if "prototypes_used" in columns:
        help_text += (
            " while many prototypes stay in use and features stay spread out; a loss "
            "that falls while these go to their lower ends is a collapse"
        )
    help_text += "."
    return section("curves", "Training curves", help_text, "".join(parts))


def slots_section(
    shown: Sequence[tuple[str, np.ndarray, ImageMaps]],
    num_prototypes: int,
    pictures: Pictures,
) -> str:
    """Each image next to its groups.

    Args:
        shown: List of (name, image uint8 (height, width, 3), `ImageMaps`).
        num_prototypes: K.
        pictures: `Pictures`.

    Example:
        >>> logits = np.eye(4, dtype="f4").reshape(2, 2, 4)
        >>> maps = ImageMaps(logits, logits)
        >>> shown = [("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)]
        >>> text = slots_section(shown, num_prototypes=4, pictures=Pictures())
        >>> text.count("<img"), text.count('class="chip"')
        (2, 4)
    """
    colors, edge, parts = label_colors(num_prototypes), page_edge(len(shown)), []
    for number, (name, image, maps) in enumerate(shown):
        image = fit_edge(image, edge, _LEAST_EDGE)
        groups = groups_at(maps.logits, image.shape[:2])  # pyright: ignore[reportArgumentType]
        stem = f"{number:03d}_{pathlib.PurePath(name).stem}"
        ids, counts = np.unique(groups, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shares = [(int(ids[i]), counts[i] / groups.size) for i in order]
        listed = ", ".join(f"{i} ({_percent(share)})" for i, share in shares)
        both = pictures.image(f"image_{stem}", image, f"photograph {name}")
        both += pictures.image(
            f"slots_{stem}",
            numbered_overlay(image, groups, colors),
            f"{name} with its groups by prototype and share: {listed}",
        )
        chips = "".join(chip(i, colors[i], _percent(share)) for i, share in shares)
        caption = f'{escaped(name)}<div class="chips">{chips}</div>'
        parts.append(figure(f'<div class="beside">{both}</div>', caption))
    help_text = (
        "Each pixel belongs to the prototype that its features are nearest to. A "
        "prototype has the same number and colour in all pictures of this page: the "
        "same number in two images means that the network sees the same kind of thing. "
        "Below each pair: the share of the image per prototype, very small regions, "
        "which carry no number, included."
    )
    content = f'<div class="pairs slots">{"".join(parts)}</div>'
    return section("slots", "Groups", help_text, content)


def components_section(
    shown: Sequence[tuple[str, np.ndarray, ImageMaps]], pictures: Pictures
) -> str:
    """Principal components of dense features; arguments as of `slots_section`.

    Example:
        >>> maps = ImageMaps(np.random.default_rng(0).normal(size=(2, 2, 8)))
        >>> shown = [("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)]
        >>> components_section(shown, Pictures()).count("<img")
        3
    """
    colors = FeatureColors([maps.features for _, _, maps in shown])
    edge, parts = min(_SMALL_EDGE, page_edge(len(shown))), []
    scale = matplotlib.colormaps["cividis"]
    for number, (name, image, maps) in enumerate(shown):
        image = fit_edge(image, edge, _LEAST_EDGE)
        values = smooth(colors(maps.features), image.shape[:2])
        stem = f"{number:03d}_{pathlib.PurePath(name).stem}"
        three = pictures.image(f"photo_{stem}", image, f"photograph {name}")
        three += pictures.image(
            f"components_{stem}",
            (255 * values).round().astype(np.uint8),
            f"{name}: three components of its features as red, green and blue",
        )
        three += pictures.image(
            f"component1_{stem}",
            (255 * scale(values[..., 0])[..., :3]).round().astype(np.uint8),
            f"{name}: the first component, from blue to yellow",
        )
        parts.append(figure(f'<div class="beside">{three}</div>', escaped(name)))
    shares = ", ".join(f"{share:.0%}" for share in colors.explained)
    help_text = (
        "Left the image, in the middle the three directions in which the encoder's "
        "features differ most, as red, green and blue; right the first of them alone, "
        "from blue to yellow, for eyes that do not tell red from green. All images "
        "share one analysis: like colours mean like features, in all of them. The "
        f"three explain {shares} of the variance, together "
        f"{colors.explained.sum():.0%}."
    )
    content = f'<div class="pairs">{"".join(parts)}</div>'
    return section("components", "Dense features", help_text, content)


def prototypes_section(atlas: PrototypeAtlas, most: int, pictures: Pictures) -> str:
    """The nearest images of every prototype in use.

    Args:
        atlas: `PrototypeAtlas`.
        most: Prototypes shown at most, the most used first.
        pictures: `Pictures`.

    Example:
        >>> logits = np.eye(4, dtype="f4").reshape(2, 2, 4)
        >>> atlas = PrototypeAtlas(4)
        >>> maps = ImageMaps(logits, logits, np.array([0.9, 0.8, 0.7, 0.6]))
        >>> atlas.add("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)
        >>> text = prototypes_section(atlas, most=2, pictures=Pictures())
        >>> text.count("<img"), "the 2 most used ones are shown" in text
        (2, True)
    """
    usage = atlas.usage()
    colors = label_colors(atlas.num_prototypes)
    used = [int(k) for k in usage.order if usage.shares[k] > 0]
    parts = []
    for prototype in used[:most]:
        row = []
        for rank, (number, cosine) in enumerate(atlas.nearest(prototype, NEAREST), 1):
            picture, region = atlas.region(number, prototype)
            name = atlas.names[number]
            image = pictures.image(
                f"prototype_{prototype:04d}_{rank}",
                spotlight(picture, region, colors[prototype]),
                f"{name}, the region of prototype {prototype} lit",
            )
            sign = "−" if cosine < 0 else ""
            caption = f"<b>{sign}{abs(cosine):.2f}</b> {escaped(name)}"
            row.append(figure(image, caption))
        text = (
            f"{_percent(usage.shares[prototype], 1)} of all positions, in "
            f"{atlas.num_images(prototype)} of {len(atlas)} images"
        )
        head = f"<h3>{chip(prototype, colors[prototype], text)}</h3>"
        parts.append(f'<div>{head}<div class="row">{"".join(row)}</div></div>')
    help_text = (
        f"For every prototype the {NEAREST} images whose slot is nearest to it, the "
        "nearest first; below each, the cosine of the two. The prototype's region is "
        "lit and outlined in its colour, the rest is grey. A good prototype lights the "
        f"same kind of thing in all {NEAREST}. Most used first. "
        + _how_many(len(used), most, atlas.num_prototypes, len(atlas))
    )
    content = f'<div class="prototypes">{"".join(parts)}</div>'
    return section("prototypes", "Prototypes", help_text, content)


def _how_many(used, most, total, num_images):
    text = f"{used} of {total} prototypes win a position in {num_images} images"
    if used > most:
        return f"{text}; the {most} most used ones are shown (max_prototypes)."
    return f"{text}; all of them are shown."


def usage_section(atlas: PrototypeAtlas, pictures: Pictures) -> str:
    """Bars of the share of positions per prototype, and what they come to.

    Example:
        >>> logits = np.eye(4, dtype="f4").reshape(2, 2, 4)
        >>> atlas = PrototypeAtlas(4)
        >>> maps = ImageMaps(logits, logits, np.array([0.9, 0.8, 0.7, 0.6]))
        >>> atlas.add("cat.jpg", np.zeros((64, 64, 3), np.uint8), maps)
        >>> "2.00 of 2.00 bits" in usage_section(atlas, Pictures())
        True
    """
    usage, total = atlas.usage(), atlas.num_prototypes
    used = total - usage.unused
    words = (
        f"{used} of {total} prototypes win somewhere in {len(atlas)} images, "
        f"{usage.unused} nowhere. The entropy of the shares is {usage.entropy:.2f} of "
        f"{np.log2(total):.2f} bits: as if {usage.perplexity:.1f} prototypes were used "
        "alike."
    )
    top = ", ".join(f"{k}: {usage.shares[k]:.1%}" for k in usage.order[:5])
    alt = f"Share of positions by prototype, most used first; {top}"
    chart = pictures.chart("usage", usage_chart(usage), alt)
    colors = label_colors(total)
    chips = "".join(
        chip(k, colors[k], f"{usage.shares[k]:.2%}") for k in usage.order[:used]
    )
    content = (
        paragraph(words)
        + f'<div class="scroll">{chart}</div>'
        + folded("Every share in numbers", f'<div class="chips">{chips}</div>')
    )
    help_text = (
        "The share of all map positions that each prototype wins. One high bar and "
        "little else is a collapse; bars of like height use the prototypes well."
    )
    return section("usage", "Prototype usage", help_text, content)


def _percent(share, digits=0):
    least = 10.0 ** (-2 - digits)
    return f"{share:.{digits}%}" if share >= least else f"<{least:.{digits}%}"


def _short(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
