"""The notebooks of examples/ run from top to bottom, in short form, without outputs."""

import subprocess
import sys
import types

import keras
import pytest

from examples import loggers
from slotcon_tf.runs import PretrainConfig
from tests.support.command import ENVIRONMENT, ROOT, free_ports, pretrain

nbformat = pytest.importorskip("nbformat", reason="requirements.txt has it")
nbclient = pytest.importorskip("nbclient", reason="requirements.txt has it")

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# Their parameters come from the environment.
SHORT = {
    "pretrain_on_own_photographs": {"COUNT": 32, "EPOCHS": 1},
    "continue_from_official_weights": {"COUNT": 32, "EPOCHS": 1},
    "segmentation": {"COUNT": 8, "STEPS": 2},
    "keras_hub_detector": {"COUNT": 4, "EPOCHS": 1},
    "object_search": {"COUNT": 16},
    "serving": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run as the quickstart's, with its export."""
    workdir = tmp_path_factory.mktemp("run")
    pretrain(
        "--flagfile=quickstart.flags",
        "--dataset=fake",
        "--epochs=1",
        "--max_steps_per_epoch=2",
        f"--workdir={workdir}",
    )
    return workdir


def test_notebooks_are_all_known():
    assert {path.stem for path in NOTEBOOKS} == set(SHORT)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(path.name in listed for path in EXAMPLES.glob("*.*nb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_say_what_they_are_and_hold_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first = notebook.cells[0].source
    assert all(word in first for word in ("You get", "Data", "Time"))
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
    assert path.stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, run, tmp_path, monkeypatch):
    ports = free_ports(2)
    variables = {
        "RUN": "" if path.stem == "keras_hub_detector" else run,
        "PORT": ports[0],
        "REST_PORT": ports[1],
        "PYTHONPATH": f"{ROOT}:{EXAMPLES}",
        "TF_CPP_MIN_LOG_LEVEL": 2,
        "CUDA_VISIBLE_DEVICES": "",
        **SHORT[path.stem],
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, resources=where).execute()


@pytest.mark.slow
def test_user_script_runs(tmp_path):
    path = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    script = EXAMPLES / "user_script.py"
    subprocess.run([sys.executable, script], cwd=tmp_path, env=path, check=True)
    assert (tmp_path / "slotcon.keras").exists()


def test_runs_in_folders_of_one_name_have_records_of_their_own(monkeypatch):
    begun = []
    service, logger = types.ModuleType("wandb"), types.ModuleType("keras")
    service.init = lambda **settings: begun.append(settings)
    service.finish = lambda: None
    logger.WandbMetricsLogger = keras.callbacks.Callback
    for name, module in (("", service), (".integration", service)):
        monkeypatch.setitem(sys.modules, f"wandb{name}", module)
    monkeypatch.setitem(sys.modules, "wandb.integration.keras", logger)
    for place in ("runs/a/coco", "runs/b/coco", "runs/a/coco"):
        loggers.weights_and_biases(PretrainConfig(workdir=place))
    assert [one["name"] for one in begun] == ["coco"] * 3
    assert begun[0]["id"] == begun[2]["id"] != begun[1]["id"]
