"""What every command has in common."""

from tests.command import module, modules

# A flag of each, defined far from its main.
COMMANDS = {
    "trainers.pretrain": "num_prototypes",
    "trainers.evaluate": "train_split",
    "trainers.finetune_segmentation": "sliding_stride",
    "trainers.visualize": "prototype_images",
    "export.client": "retry_minutes",
}


def test_help_lists_its_flags():
    first, *others = COMMANDS
    # absl's --help exits with 1.
    done = [module(first, "--help", check=False)]
    done += modules(*((name, "--help") for name in others), check=False)
    for (name, flag), each in zip(COMMANDS.items(), done, strict=True):
        assert f"--{flag}:" in each.stdout, (name, each.stderr[-2000:])
