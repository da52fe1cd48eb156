"""Runs one test file under pytest: the main of every py_test in BUILD."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-n0", *sys.argv[1:]]))
