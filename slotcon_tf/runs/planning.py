"""A plan of any kind of run."""

from __future__ import annotations

from slotcon_tf.runs import report
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.finetuning import FinetuneRun
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.run import own_process
from slotcon_tf.runs.run_plan import Plan


def plan(config: PretrainConfig | FinetuneConfig) -> Plan:
    """What a run would take, by ten real steps of it; nothing is written.

    The steps are the run's own: its images, network, optimizer, strategy. Of a work
    directory that holds a run, the plan is of what is left of it.

    Args:
        config: Of the run.

    Returns:
        The plan; `print` shows it as a table.

    Raises:
        SettingError, ValueError, OSError: As the run would.
        RunStopped: If a step breaks off.
        CommandError: If a step does not fit into memory.

    Example:
        >>> config = PretrainConfig(
        ...     dataset="fake", arch="resnet10", image_size=32, batch_size=2, epochs=9,
        ...     max_steps_per_epoch=100, num_prototypes=4, hidden_dim=8,
        ...     projection_dim=8, precision="float32", workdir="not/made",
        ... )
        >>> found = plan(config)
        >>> found.steps_taken, found.steps_left, found.disk.checkpoints
        (10, 900, 4)
        >>> better = {one.setting: one.value for one in found.changes if one.setting}
        >>> better["checkpoint_epochs"] > 1
        True
    """
    report.start_logging()
    kind = PretrainRun if isinstance(config, PretrainConfig) else FinetuneRun
    with own_process():
        return kind(config.replace(dry_run=True)).plan()
