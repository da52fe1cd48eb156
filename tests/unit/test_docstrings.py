"""Examples in docstrings run, and every public name has one."""

import doctest
import inspect
from importlib import import_module

import pytest

from tests.support.command import ROOT

PACKAGES = ("slotcon_tf", "trainers", "export")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Rooms whose public names are all shown. A name without an example goes here, and out
# again with its example: the list only shrinks.
MISSING: set[str] = set()


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# By their files: collecting the tests imports none.
FILES = {
    _name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
WITH_EXAMPLES = [name for name, path in FILES.items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=OPTIONS)
    assert not result.failed


def public():
    """Every class and function of a room's `__all__`, by its full name, once."""
    found, seen = {}, set()
    for name in FILES:
        module = import_module(name)
        for one in getattr(module, "__all__", ()):
            thing = getattr(module, one)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and (
                thing not in seen
            ):
                seen.add(thing)
                found[f"{name}.{one}"] = thing
    return found


def _shown(thing):
    """Whether it, or for a class one of its own methods, has an example."""
    own = vars(thing).values() if inspect.isclass(thing) else ()
    texts = [thing.__doc__, *(getattr(one, "__doc__", None) for one in own)]
    return any(">>>" in text for text in texts if isinstance(text, str))


def test_every_public_name_has_an_example():
    missing = {name for name, thing in public().items() if not _shown(thing)}
    assert missing == MISSING, sorted(missing ^ MISSING)
