"""What every command has in common."""

import pytest

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
    done = module(name, "--help", check=False)  # absl's --help exits with 1
    assert f"--{flag}:" in done.stdout
