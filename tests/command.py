"""Commands of this project as a user types them, in processes of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}


def run(*words, check=True):
    """Runs a command in the project's folder; returns the finished process."""
    done = subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def module(name, *flags, check=True):
    """`python -m NAME FLAGS`."""
    return run(sys.executable, "-m", name, *flags, check=check)
