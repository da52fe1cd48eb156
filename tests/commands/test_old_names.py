"""Names that users may have typed stay where they were."""

import importlib

import pytest

from slotcon_tf.interop.loading import encoder_tensors
from slotcon_tf.interop.names import encoder_entries
from slotcon_tf.interop.saving import save_encoder
from slotcon_tf.interop.weights import open_weights
from tests.support.small_case import resnet

OLD = {
    "slotcon_tf.serving.decoding": "EMPTY TOO_LARGE UNKNOWN",
    "slotcon_tf.data.labelled.segmented": "LABEL_FEATURES",
    "slotcon_tf.data.listing": "EXTENSIONS",
    "slotcon_tf.data.sources": "NumberedSource SequentialSource read_file",
    "slotcon_tf.interop.loading": "Report encoder_tensors",
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(m, name) for m, names in OLD.items() for name in names.split()],
)
def test_can_be_imported(module, name):
    assert getattr(importlib.import_module(module), name) is not None


def test_the_tensors_of_an_encoder(tmp_path):
    """Other libraries' names come out as the original's."""
    encoder = resnet(deep_stem=True)
    save_encoder(encoder, tmp_path / "e.pth", "mmsegmentation")
    with open_weights(tmp_path / "e.pth") as weights:
        assert set(encoder_entries(encoder)) <= set(encoder_tensors(weights.tensors))
