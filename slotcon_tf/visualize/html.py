"""Pieces of an HTML page that needs nothing but itself, and its look."""

from __future__ import annotations

import base64
import html
import io
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from slotcon_tf.files import written_whole
from slotcon_tf.visualize.charts import svg_of
from slotcon_tf.visualize.colors import hex_color, text_color
from slotcon_tf.visualize.figures import write_figure

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1e23; --soft: #59606b;
  --line: #d5d9e0; --card: #f5f6f8; --accent: #0b62a3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e7e9ec;
  --soft: #a5adb8; --line: #363c45; --card: #1d2127; --accent: #7cbcf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1480px; padding: 0 clamp(12px, 3vw, 40px) 60px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1.6rem 0 .3rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 0 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 80ch; overflow-wrap: anywhere; }
.help, figcaption, .note { color: var(--soft); }
.note { border-left: 3px solid var(--accent); padding-left: .7rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .8rem 0 0; }
a { color: var(--accent); }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.4rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .82rem; line-height: 1.35; margin-top: .35rem;
  overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .3rem 0 .8rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: 4px;
  font-size: .8rem; line-height: 1.4; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .8rem 0; padding: 0; }
.facts div { min-width: 6rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; gap: 1rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
.charts figure { max-width: 420px; }
.pairs { display: grid; gap: 1.4rem 1.8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); }
.beside { display: flex; gap: 6px; align-items: flex-start; }
.beside img { min-width: 0; }
.prototypes { display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); }
.prototypes h3 { margin: 0 0 .4rem; }
.row { display: grid; gap: 5px; align-items: start;
  grid-template-columns: repeat(5, minmax(0, 1fr)); }
.row figcaption { font-size: .72rem; margin-top: .15rem; }
.chips { display: flex; flex-wrap: wrap; gap: .25rem .6rem; margin-top: .4rem; }
.chip { display: inline-flex; gap: .3rem; align-items: center; font-size: .8rem; }
.chip b { border-radius: 3px; padding: 0 .4rem; min-width: 1.7rem; text-align: center;
  border: 1px solid var(--line); }
.scroll { overflow-x: auto; }
.scroll > div { min-width: 640px; max-width: 920px; }
@media (max-width: 620px) { .slots .beside { flex-direction: column; }
  .row { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
"""


_JPEG_QUALITY = 84


def escaped(text: object) -> str:
    """Any text as HTML; bytes of a path that are no text are shown as such.

    Example:
        >>> escaped("a < b")
        'a &lt; b'
    """
    text = str(text).encode("utf-8", "backslashreplace").decode()
    return html.escape(text)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text.

    Example:
        >>> paragraph("No groups & no prototypes.", "note")
        '<p class="note">No groups &amp; no prototypes.</p>'
    """
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escaped(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text; the first cell of a row is its heading.

    Example:
        >>> text = table(["score", "trained"], [["nmi", "0.41"]])
        >>> text[text.index("<tbody>") : text.index("</tbody>")]
        '<tbody><tr><th scope="row">nmi</th><td>0.41</td></tr>'
    """
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>')
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return (
        f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'
    )


def folded(summary: str, content: str) -> str:
    """HTML that opens on a click.

    Example:
        >>> folded("Settings", paragraph("none"))
        '<details><summary>Settings</summary><p>none</p></details>'
    """
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>"


def chip(number: int, color: np.ndarray, text: str = "") -> str:
    """A prototype's number on its colour, and plain text behind it.

    Example:
        >>> chip(7, np.array([255, 160, 0]), "12%")
        '<span class="chip"><b style="background:#ffa000;color:#000000">7</b>12%</span>'
    """
    style = f"background:{hex_color(color)};color:{hex_color(text_color(color))}"
    return (
        f'<span class="chip"><b style="{style}">{int(number)}</b>{escaped(text)}</span>'
    )


def figure(content: str, caption: str, kind: str = "") -> str:
    """HTML with a caption, which is HTML too.

    Example:
        >>> figure("<svg></svg>", "total loss")
        '<figure><svg></svg><figcaption>total loss</figcaption></figure>'
    """
    mark = f' class="{kind}"' if kind else ""
    return f"<figure{mark}>{content}<figcaption>{caption}</figcaption></figure>"


def section(name: str, title: str, help_text: str, content: str) -> str:
    """A section: its anchor, its title, how to read it, and HTML.

    Example:
        >>> section("usage", "Usage", "One bar each.", "<svg></svg>")
        '<section id="usage"><h2>Usage</h2><p class="help">One bar each.</p><svg>...'
    """
    return (
        f'<section id="{name}"><h2>{escaped(title)}</h2>'
        f"{paragraph(help_text, 'help')}{content}</section>"
    )


def page(title: str, head: str, sections: Mapping[tuple[str, str], str]) -> str:
    """The page.

    Args:
        title: Plain text.
        head: HTML above the sections.
        sections: Dict of (anchor, title) to HTML of `section`.

    Returns:
        HTML of the whole document.

    Example:
        >>> usage = section("usage", "Usage", "One bar each.", "<svg></svg>")
        >>> text = page("coco", "<h1>coco</h1>", {("usage", "Usage"): usage})
        >>> '<nav><a href="#usage">Usage</a></nav>' in text
        True
    """
    links = "".join(f'<a href="#{name}">{escaped(text)}</a>' for name, text in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head><body>"
        f"<header>{head}<nav>{links}</nav></header>"
        f"<main>{''.join(sections.values())}</main></body></html>\n"
    )


class Pictures:
    """Turns pictures into HTML, and writes them as PNG files too if asked.

    Args:
        folder: Of the PNG files, created if missing; None: no files.

    Example:
        >>> pictures = Pictures(pathlib.Path("pictures"))
        >>> text = pictures.image("cat", np.zeros((8, 8, 3), np.uint8), "a cat")
        >>> text[:32], text[-33:]
        ('<img src="data:image/jpeg;base64', 'alt="a cat" width="8" height="8">')
        >>> pathlib.Path("pictures/cat.png").exists()
        True
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self.folder = pathlib.Path(folder) if folder else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def image(self, name: str, pixels: np.ndarray, alt: str) -> str:
        """An <img>.

        Args:
            name: Of the file, without its ending; what no file system takes is dropped.
            pixels: uint8 (H, W, 3).
            alt: What it shows, plain text.

        Returns:
            HTML; the picture is a JPEG inside of it.
        """
        picture = Image.fromarray(pixels)
        if self.folder:
            with written_whole(self._path(name)) as aside:
                picture.save(aside)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<img src="data:image/jpeg;base64,{data}" alt="{escaped(alt)}" '
            f'width="{picture.width}" height="{picture.height}">'
        )

    def chart(self, name: str, drawing: Figure, alt: str) -> str:
        """A matplotlib figure as inline SVG; arguments as of `image`."""
        if self.folder:
            write_figure(self._path(name), drawing)
        return f'<div role="img" aria-label="{escaped(alt)}">{svg_of(drawing)}</div>'

    def _path(self, name):
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:120]}.png"
