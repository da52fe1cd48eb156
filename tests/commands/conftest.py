"""What tests of commands share."""

import importlib
import re

import pytest

from tests.support.command import ROOT
from tests.support.serving_case import binary_of, serving
from tests.support.tiny_model import write_tiny_model

# As the local server's flags have it.
_MODELS = """model_config_list {{ config {{
  name: "slotcon" base_path: "{}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }}
  version_labels {{ key: "canary" value: 3 }}
}} }}"""


@pytest.fixture(scope="session", params=["local", "tensorflow_model_server"])
def tiny_server(request, tmp_path_factory):
    """`Server` of the tiny model's versions 1, which is stable, and 2; to be read only.

    The canary, 3, is not there.
    """
    binary = binary_of(request)
    base = tmp_path_factory.mktemp("tiny")
    folder = base / "slotcon"
    for version in (1, 2):
        write_tiny_model(folder / str(version), filters=3 + version)
    config = base / "models.config"
    config.write_text(_MODELS.format(folder))
    flags = ["--keep_versions=2", "--version_labels=stable:1,canary:3"]
    binary_flags = [
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
        f"--monitoring_config_file={ROOT / 'export' / 'serving' / 'monitoring.config'}",
    ]
    options = {"binary": binary, "binary_flags": binary_flags, "rest": True}
    with serving(folder, *flags, **options) as server:
        yield server


@pytest.fixture
def tells(capsys, tmp_path, monkeypatch):
    """Function: runs a command in this process, in an empty folder.

    It returns the exit status, the command's last line, and all that it told.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(name, *words):
        main = importlib.import_module(name).main
        with pytest.raises(SystemExit) as end:
            main([name, *map(str, words)])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        own = own_lines(name, told)
        return end.value.code, own[-1] if own else "", told

    return run


def own_lines(name, told):
    """The lines that a command's main has told."""
    main = importlib.import_module(name).main
    return [line for line in told.splitlines() if line.startswith(f"{main.name}: ")]


@pytest.fixture
def ends(tells):
    """Function: `tells` of a command that ends with its only error.

    It returns the exit status, and that line.
    """

    def run(name, *words):
        status, _, told = tells(name, *words)
        own = own_lines(name, told)
        errors = [line for line in own if not re.search(r": warning: |% \d+/", line)]
        assert len(errors) == 1 and told.splitlines()[-1] == errors[0], told
        return status, errors[0]

    return run
