"""What every command has in common."""

import subprocess
import sys

import pytest

from tests.test_pretrain import ENVIRONMENT, ROOT


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("trainers.pretrain", "num_prototypes"),
        ("trainers.evaluate", "train_split"),
        ("trainers.finetune_segmentation", "sliding_stride"),
        ("trainers.visualize", "prototype_images"),
        ("export.client", "retry_minutes"),
    ],
)
def test_help_lists_its_flags(module, flag):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"--{flag}:" in done.stdout
