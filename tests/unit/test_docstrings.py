"""Examples in docstrings run, and every public name has one."""

import ast
import doctest
from importlib import import_module

import pytest

from tests.support.command import ROOT

PACKAGES = ("slotcon_tf", "slotcon_client", "trainers", "export")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# By their files: collecting the tests imports none.
FILES = {
    _name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
_DOCUMENTED = (ast.ClassDef, ast.FunctionDef)
OF_EXTRAS = {"export.beam": "apache_beam"}  # imported by them alone
WITH_EXAMPLES = [name for name, path in FILES.items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    if name in OF_EXTRAS:
        pytest.importorskip(OF_EXTRAS[name], reason="needs requirements-beam.txt")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=OPTIONS)
    assert not result.failed


def public():
    """Every module's own public classes and functions: full name and syntax tree."""
    for module, path in FILES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, _DOCUMENTED) and not node.name.startswith("_"):
                yield f"{module}.{node.name}", node


def _shown(node):
    """Whether it, or for a class one of its own methods, has an example."""
    parts = [node, *(node.body if isinstance(node, ast.ClassDef) else ())]
    texts = [ast.get_docstring(n) for n in parts if isinstance(n, _DOCUMENTED)]
    return any(">>> " in text for text in texts if text)


def test_every_public_name_has_an_example():
    assert not [name for name, node in public() if not _shown(node)]
