"""Pages point to what is there, and the tables have every setting of every command."""

import importlib.util
import re

import pytest

from tests.support.command import ROOT
from tests.support.fences import pages

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def _hooks():
    """The site's own part, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _anchors(path):
    """Of the headings, as GitHub and the site make them."""
    text = _FENCE.sub("", path.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in kept}


@pytest.mark.parametrize(
    "page",
    [*pages(), ROOT / "benchmarks" / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page):
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_tables_have_every_setting_of_every_command():
    hooks = _hooks()
    commands = hooks.commands()
    assert len(commands) >= 12
    text = "\n".join(hooks.tables())
    for name, command in commands.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        assert f"`{command.config_class.__name__}`" in section
        for known in command.config_class.settings().values():
            (row,) = re.findall(rf"^\| `--{known.flag}` \|.*$", section, re.MULTILINE)
            assert known.help.replace("|", "\\|") in row
            assert ("*Free.*" in row) == known.free
    page = ROOT / "docs" / "reference" / "settings.md"
    assert hooks.SETTINGS in page.read_text()


def test_pages_of_the_site_are_all_in_its_contents():
    contents = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"- {page.relative_to(ROOT / 'docs')}\n" in contents
