"""What the wheel holds and asks for. `.ci/package` installs and uses it."""

import email
import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import slotcon_tf
from tests.support.command import ROOT, module, run

_SETUPTOOLS = int(importlib.metadata.version("setuptools").partition(".")[0])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The open wheel of a copy of this checkout: building writes beside its sources."""
    if _SETUPTOOLS < 77:
        pytest.skip(f"needs setuptools 77, of requirements.txt; here is {_SETUPTOOLS}")
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build")
    for name in ("slotcon_tf", "client", "trainers", "export", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=unwanted)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        + ["--quiet", "--wheel-dir", folder, folder / "source"],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def metadata(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_it_holds_the_library_and_its_client(wheel):
    names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "slotcon_tf",
        "slotcon_client",
        f"slotcon_tf-{slotcon_tf.__version__}.dist-info",
    }
    others = [n for n in names if not n.endswith(".py") and ".dist-info/" not in n]
    recipes = {path.name for path in ROOT.glob("*.flags")}
    serving = {path.name for path in (ROOT / "export" / "serving").iterdir()}
    assert sorted(others) == sorted(
        ["slotcon_tf/py.typed", "slotcon_client/py.typed"]
        + [f"slotcon_tf/recipes/{name}" for name in recipes]
        + [f"slotcon_tf/export/serving/{name}" for name in serving]
    )


def test_every_module_travels(wheel):
    here = {path.relative_to(ROOT) for path in (ROOT / "slotcon_tf").rglob("*.py")}
    names = {str(path) for path in here}
    client = ROOT / "client"
    names |= {str(path.relative_to(client)) for path in client.rglob("*.py")}
    for room in ("trainers", "export"):
        names |= {f"slotcon_tf/{room}/{p.name}" for p in (ROOT / room).glob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == names


def test_it_asks_for_ranges(wheel):
    about = metadata(wheel)
    asked = about.get_all("Requires-Dist")
    assert asked and not [line for line in asked if "==" in line.partition(";")[0]]
    core = [line for line in asked if "extra ==" not in line]
    tools = ("pytest", "ruff", "keras-cv", "tensorflow-serving-api", "pre-commit")
    assert not [line for line in core if line.startswith(tools)]
    assert about["Version"] == slotcon_tf.__version__
    assert about["License-Expression"] == "Apache-2.0"


def test_commands_have_mains():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, target in project["scripts"].items():
        module, _, function = target.removeprefix("slotcon_tf.").partition(":")
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert name.startswith("slotcon-") and function == "main"
        assert "main = " in path.read_text() or "def main(" in path.read_text()


def test_the_version_is_told():
    said = module("trainers.pretrain", "--version").stdout
    assert said == f"slotcon_tf {slotcon_tf.__version__}\n"


def test_lower_bounds_are_those_of_the_project():
    """Pinned in .ci/versions, in requirements.txt at least as new."""
    lines = run(sys.executable, ".ci/lower_bounds", "serving").stdout.split()
    oldest = dict(line.split("==") for line in lines)
    assert {"tensorflow", "keras", "numba", "tensorflow-serving-api"} <= set(oldest)
    locked = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        locked[name] = [int(part) for part in version.split(".") if part.isdigit()]
    for name, lowest in oldest.items():
        if name in locked:
            assert locked[name] >= [int(part) for part in lowest.split(".")], name
