"""What tests of commands share."""

import importlib
import re

import pytest


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
