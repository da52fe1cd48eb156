"""What every command has in common."""

import pytest

import slotcon_tf
from tests.support.command import module


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("trainers.pretrain", "num_prototypes"),
        ("trainers.evaluate", "train_split"),
        ("trainers.finetune_segmentation", "sliding_stride"),
        ("trainers.visualize", "prototype_images"),
        ("export.client", "retry_minutes"),
    ],
)
def test_help_lists_its_flags(name, flag):
    assert f"--{flag}:" in module(name, "--help").stdout


def test_the_version_is_told():
    said = module("trainers.pretrain", "--version").stdout
    assert said == f"slotcon_tf {slotcon_tf.__version__}\n"
