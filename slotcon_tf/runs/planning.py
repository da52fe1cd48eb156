"""A plan of any kind of run."""

from __future__ import annotations

from typing import Any

from slotcon_tf.runs import report
from slotcon_tf.runs.detection_config import DetectionConfig
from slotcon_tf.runs.detection_run import DetectionRun
from slotcon_tf.runs.finetune_config import FinetuneConfig
from slotcon_tf.runs.finetuning import FinetuneRun
from slotcon_tf.runs.pretrain_config import PretrainConfig
from slotcon_tf.runs.pretraining import PretrainRun
from slotcon_tf.runs.run_plan import Plan

_RUNS = {
    PretrainConfig: PretrainRun,
    FinetuneConfig: FinetuneRun,
    DetectionConfig: DetectionRun,
}


def plan(config: PretrainConfig | FinetuneConfig | DetectionConfig) -> Plan:
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
        ```python
        from slotcon_tf.runs import PretrainConfig, plan

        config = PretrainConfig.from_recipe("coco", data_dir="/data/coco")
        found = plan(config)
        print(found, found.end, found.disk.needed, found.waiting_share)
        better = {one.setting: one.value for one in found.changes if one.setting}
        config = config.replace(**better)
        ```
        >>> plan(FinetuneConfig(data_dir="nowhere"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    report.start_logging()
    kind: Any = next(run for of, run in _RUNS.items() if isinstance(config, of))
    with kind.begun(config.replace(dry_run=True)) as run:
        return run.plan()
