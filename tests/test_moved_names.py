"""Names that moved are found where they were: somebody may have typed them."""

import importlib

import pytest

MOVED = {
    "slotcon_tf.backbones": ["as_encoder"],
    "slotcon_tf.network": ["twin"],
    "slotcon_tf.training": ["BATCH_KEYS"],
}


@pytest.mark.parametrize("module", MOVED)
def test_names_that_moved(module):
    found = vars(importlib.import_module(module))
    assert [name for name in MOVED[module] if name not in found] == []
