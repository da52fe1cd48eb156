"""What is not installed is named in one line, and is imported where it is needed."""

import ast
import json
import pathlib
import re
import struct
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from export.compare import compare
from export.tables import write_table
from slotcon_tf import backbone
from slotcon_tf.data import record_index
from slotcon_tf.detection.results import encode_masks
from slotcon_tf.detection.scoring import check_scoring
from slotcon_tf.evaluation.classification import linear_classifier, nearest_neighbours
from slotcon_tf.extras import MissingExtra, needed
from slotcon_tf.interop.saving import save_encoder
from slotcon_tf.interop.weights import open_weights
from slotcon_tf.runs import FinetuneConfig, PretrainConfig, workdir
from slotcon_tf.serving.onnx_file import export_onnx
from slotcon_tf.serving.warmup import write_warmup
from slotcon_tf.visualize.maps import FeatureColors

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ROWS, CLASSES = np.eye(3), np.arange(3)


def read_safetensors(folder):
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    with open_weights(path):
        pass


def write_safetensors(folder):
    encoder = backbone("resnet10", width=8)
    save_encoder(encoder, folder / "a.safetensors", "safetensors")


def checksum(folder):
    record_index._checksum.cache_clear()
    record_index.masked_checksum(b"")


def compare_groups(folder):
    signatures = {"embed": None, "groups": None}
    compare(signatures, signatures, [])


# Package as imported, its extra, and what needs it.
USES = [
    ("safetensors", "interop", read_safetensors),
    ("safetensors", "interop", write_safetensors),
    ("google_crc32c", "data", checksum),
    ("sklearn", "evaluation", lambda _: nearest_neighbours(ROWS, CLASSES)),
    ("sklearn", "evaluation", lambda _: linear_classifier(ROWS, CLASSES)),
    ("sklearn", "evaluation", lambda _: FeatureColors([np.ones((2, 2, 3))])),
    ("sklearn", "evaluation", compare_groups),
    ("faster_coco_eval", "evaluation", lambda _: check_scoring()),
    ("faster_coco_eval", "evaluation", lambda _: encode_masks([], [], 2, 2)),
    ("onnx", "onnx", lambda folder: export_onnx(None, folder / "a.onnx")),
    ("tf2onnx", "onnx", lambda folder: export_onnx(None, folder / "a.onnx")),
    ("pyarrow", "serving", lambda folder: write_table(folder / "a.parquet", [], {})),
]


@pytest.fixture
def hide(monkeypatch):
    """Function of a package's name: as if it were not installed."""

    def hidden(package):
        loaded = [name for name in sys.modules if name.startswith(f"{package}.")]
        for name in (package, *loaded):
            monkeypatch.setitem(sys.modules, name, None)

    return hidden


@pytest.mark.parametrize(("package", "extra", "use"), USES)
def test_a_missing_package_is_named_with_its_extra(hide, package, extra, use, tmp_path):
    hide(package)
    with pytest.raises(MissingExtra) as caught:
        use(tmp_path)
    text = str(caught.value)
    assert f"package {package} must" in text and "\n" not in text
    assert text.endswith(f'Run: pip install "slotcon_tf[{extra}]"')


def test_without_serving_there_is_no_warm_up_which_is_said(hide, tmp_path, caplog):
    hide("tensorflow_serving")
    assert not write_warmup(tmp_path, "slotcon", {}, [1], 32)
    assert not list(tmp_path.iterdir())
    (said,) = caplog.messages
    assert "No warm-up" in said and 'pip install "slotcon_tf[serving]"' in said


def test_a_module_of_our_own_that_is_missing_is_no_extra():
    with pytest.raises(ModuleNotFoundError, match="slotcon_tf.nothing"):  # noqa: SIM117
        with needed("serving"):
            import slotcon_tf.nothing  # noqa: F401


def test_the_extras_that_errors_name_are_there():
    named = set()
    for folder in ("slotcon_tf", "trainers", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            named |= set(re.findall(r"needed\(\"(\w+)\"\):", text))
            named |= set(re.findall(r"slotcon_tf\[(\w+)\]", text))
    assert named <= set(EXTRAS)
    assert {extra for _, extra, _ in USES} | {"heic", "serving"} <= named
    # Beam would bring an older Pillow.
    every = ",".join(sorted(set(EXTRAS) - {"all", "beam", "docs", "dev"}))
    assert EXTRAS["all"] == [f"slotcon_tf[{every}]"]


def imported_by(*modules, hidden=()):
    """Packages outside the standard library that imports bring beyond TensorFlow."""
    code = f"""
import importlib, json, sys
for name in {hidden!r}: sys.modules[name] = None
import tensorflow, keras
before = set(sys.modules)
for name in {modules!r}: importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    roots = {name.partition(".")[0] for name in found}
    return len(found), roots - set(sys.stdlib_module_names)


@pytest.mark.slow
def test_an_import_brings_nothing_heavy():
    """0.2 s beyond TensorFlow; modules are counted here, since clocks vary."""
    count, roots = imported_by("slotcon_tf")
    assert roots <= {"slotcon_tf", "slotcon_client", "PIL"} and count < 80
    _, roots = imported_by("slotcon_tf.interop")
    assert not roots & {"numba", "tensorflow_datasets", "sklearn", "matplotlib", "grpc"}


def test_commands_are_there_without_any_extra():
    """They are imported, so that what is missing is said by the command itself."""
    scripts = PROJECT["scripts"].values()
    modules = [s.removeprefix("slotcon_tf.").partition(":")[0] for s in scripts]
    assert len(modules) == 14
    hidden = ["google_crc32c", "onnx", "pillow_heif", "pyarrow", "safetensors"]
    hidden += [
        "faster_coco_eval",
        "sklearn",
        "tensorflow_serving",
        "tf2onnx",
        "keras_hub",
        "keras_cv",
    ]
    _, roots = imported_by(*modules, hidden=hidden)
    assert {"slotcon_tf", "trainers", "export"} <= roots


def test_messages_name_commands_that_an_installed_package_has(tmp_path):
    """The rooms trainers/ and export/ go by other names there."""
    room = re.compile(r"(?<![\w.])(trainers|export)\.[a-z]")
    named = []
    for path in [*ROOT.glob("slotcon_tf/**/*.py"), *ROOT.glob("export/*.py")]:
        tree = ast.parse(path.read_text())
        documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)
        }
        named += [
            f"{path}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in docs and room.search(node.value)
        ]
    assert not named
    for kind in (PretrainConfig, FinetuneConfig):
        config = kind(workdir=str(tmp_path / kind.__name__))
        workdir.claim(config)
        flags = tmp_path / kind.__name__ / config.flagfile
        _, line, *_ = flags.read_text().splitlines()
        assert line.split()[1] in PROJECT["scripts"]
