"""The site's own part, a hook of mkdocs: pages from elsewhere, settings, links.

README.md, benchmarks/README.md and examples/README.md become pages of the site; the
tables of settings are made from the commands' configurations; links between files of
the repository become links between pages, or plain text where there is no page.
"""

import importlib
import logging
import pathlib
import pkgutil
import posixpath
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
}
SETTINGS = "<!-- settings of all commands -->"
HEAD = ("| flag | default | what it is |", "| --- | --- | --- |")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)
_log = logging.getLogger("mkdocs.hooks.own")  # warnings end a strict build


def on_files(files, config):
    """Adds the pages that live outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        path = str(ROOT / source)
        files.append(File.generated(config, page, abs_src_path=path))
    return files


def on_page_markdown(markdown, page, **_):
    """Fills in the settings, and turns links towards files of the repository."""
    if SETTINGS in markdown:
        markdown = markdown.replace(SETTINGS, "\n\n".join(tables()))
    here = {p: source for source, p in PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    parts = _FENCE.split(markdown)
    parts[::2] = [
        _LINK.sub(lambda m: _turned(m, here, page.file.src_uri), part)
        for part in parts[::2]
    ]
    return "".join(parts)


def _turned(match, source, page):
    image, text, link = match.groups()
    path, anchor, name = link.partition("#")
    if not path or ":" in path:
        return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / target).exists():
        _log.warning("%s links to %s, which is no file", source, link)
    target = PAGES.get(target, target.removeprefix("docs/"))
    if target.startswith("docs/") or not (
        target in PAGES.values() or (ROOT / "docs" / target).exists()
    ):
        return text
    relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
    return f"{image}[{text}]({relative}{anchor}{name})"


def commands():
    """Every main of the repository: module name to its `Command`."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from slotcon_tf.extras import MissingExtra
    from slotcon_tf.runs.command import Command

    found = {}
    for package in ("trainers", "export"):
        for module in pkgutil.iter_modules([str(ROOT / package)], f"{package}."):
            try:
                main = getattr(importlib.import_module(module.name), "main", None)
            except MissingExtra:  # of what is no command
                continue
            if isinstance(main, Command):
                found[module.name] = main
    return found


def tables():
    """Markdown: a section and a table of settings per command."""
    for name, command in commands().items():
        what = command.doc.strip().splitlines()[0].partition(":")[0].rstrip(".")
        rows = [_row(known) for known in command.config_class.settings().values()]
        yield f"## {name}"
        yield f"{what}. In Python: `{command.config_class.__name__}`."
        yield "\n".join([*HEAD, *rows])


def _row(known):
    told = [known.help]
    if known.choices:
        told.append(f"One of {', '.join(f'`{c}`' for c in known.choices)}.")
    if known.low is not None or known.high is not None:
        low = "" if known.low is None else f"{known.low} or more"
        high = "" if known.high is None else f"{known.high} or less"
        told.append(", ".join(filter(None, (low, high))).capitalize() + ".")
    told += ["*Free.*"] * known.free + ["*Addable.*"] * known.addable
    told += ["*A place.*"] * known.place
    if known.above is not None:
        told.append(f"Above {known.above}.")
    if known.aliases:
        told.append(f"Once {', '.join(f'`--{a}`' for a in known.aliases)}.")
    line = known.line(known.default) or ""
    default = line if known.kind is bool else line.partition("=")[2]
    cells = (f"`--{known.flag}`", f"`{default}`" if default else "", " ".join(told))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
