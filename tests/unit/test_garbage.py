"""Imports are not slowed down by collections; afterwards all is as it was."""

import gc
import sys

import pytest

from slotcon_tf import garbage
from tests.support.command import run


@pytest.fixture
def as_before():
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("was_on", [True, False])
def test_nothing_is_collected_inside(was_on, as_before):
    (gc.enable if was_on else gc.disable)()
    with pytest.raises(KeyError), garbage.not_collected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() == was_on


SELDOM = """
import gc, runpy, sys
runpy.run_path(sys.argv[1])["collect_seldom"]()
count = lambda: gc.get_stats()[0]["collections"]
before = count()
kept = [[] for _ in range(8_000)]
assert count() == before
kept += [[] for _ in range(8_000)]
assert count() == before + 1
"""


def test_cycles_still_go():
    """After ten thousand objects, and not seven hundred; in a process of its own."""
    run(sys.executable, "-c", SELDOM, garbage.__file__)


USERS = """
import gc
state = lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())
before = state()
import slotcon_tf
assert before == state(), (before, state())
"""


@pytest.mark.slow
def test_a_users_script_collects_as_before():
    run(sys.executable, "-c", USERS)
