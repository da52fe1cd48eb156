"""Pieces of an HTML page that needs nothing but itself."""

import base64
import html
import io
import pathlib
import re

from PIL import Image

from slotcon_tf.visualize.charts import svg_of
from slotcon_tf.visualize.colors import hex_color, text_color
from slotcon_tf.visualize.style import STYLE

_JPEG_QUALITY = 84


def escaped(text):
    """Any text as HTML; bytes of a path that are no text are shown as such."""
    text = str(text).encode("utf-8", "backslashreplace").decode()
    return html.escape(text)


def paragraph(text, kind=""):
    """A paragraph of plain text."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escaped(text)}</p>"


def table(header, rows):
    """A table of plain text; the first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>')
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return (
        f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'
    )


def folded(summary, content):
    """HTML that opens on a click."""
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>"


def chip(number, color, text=""):
    """A prototype's number on its colour, and plain text behind it."""
    style = f"background:{hex_color(color)};color:{hex_color(text_color(color))}"
    return (
        f'<span class="chip"><b style="{style}">{int(number)}</b>{escaped(text)}</span>'
    )


def figure(content, caption, kind=""):
    """HTML with a caption, which is HTML too."""
    mark = f' class="{kind}"' if kind else ""
    return f"<figure{mark}>{content}<figcaption>{caption}</figcaption></figure>"


def section(name, title, help_text, content):
    """A section: its anchor, its title, how to read it, and HTML."""
    return (
        f'<section id="{name}"><h2>{escaped(title)}</h2>'
        f"{paragraph(help_text, 'help')}{content}</section>"
    )


def page(title, head, sections):
    """The page.

    Args:
        title: Plain text.
        head: HTML above the sections.
        sections: Dict of (anchor, title) to HTML of `section`.

    Returns:
        HTML of the whole document.
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
    """

    def __init__(self, folder=None):
        self.folder = pathlib.Path(folder) if folder else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def image(self, name, pixels, alt):
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
            picture.save(self._path(name))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<img src="data:image/jpeg;base64,{data}" alt="{escaped(alt)}" '
            f'width="{picture.width}" height="{picture.height}">'
        )

    def chart(self, name, drawing, alt):
        """A matplotlib figure as inline SVG; arguments as of `image`."""
        if self.folder:
            drawing.savefig(self._path(name), dpi=150)
        return f'<div role="img" aria-label="{escaped(alt)}">{svg_of(drawing)}</div>'

    def _path(self, name):
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:120]}.png"
