"""What tests of commands share."""

import importlib
import re

import pytest


@pytest.fixture
def ends(capsys, tmp_path, monkeypatch):
    """Function: runs a command in this process, in an empty folder.

    It returns the exit status, and the line that the command ends with.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(name, *words):
        main = importlib.import_module(name).main
        with pytest.raises(SystemExit) as end:
            main([name, *map(str, words)])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        own = [line for line in told.splitlines() if line.startswith(f"{main.name}: ")]
        errors = [line for line in own if not re.search(r": warning: |% \d+/", line)]
        assert len(errors) == 1 and told.splitlines()[-1] == errors[0], told
        return end.value.code, errors[0]

    return run
