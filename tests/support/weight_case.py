"""How a bad file of weights must be refused."""

import resource
import time

import pytest

from slotcon_tf.interop import CheckpointFileError, load_pretrained


def refused(path, match, megabytes=300, seconds=20, load=load_pretrained):
    """The one line that a file is refused with, in bounded memory and time."""
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointFileError, match=match) as caught:
        load(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < megabytes * 1024 and time.monotonic() - start < seconds
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message
