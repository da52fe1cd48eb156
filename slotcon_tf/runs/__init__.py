"""Runs: what lasts from a command to its results, and survives a kill.

Example:
    ```python
    from slotcon_tf.runs import PretrainConfig, pretrain

    run = pretrain(PretrainConfig.from_recipe("small", data_dir="photos"))
    found = run.model.slots(images)
    ```
"""

from __future__ import annotations

import typing

from slotcon_tf.lazy import lazy_names

if typing.TYPE_CHECKING:
    from slotcon_tf.runs.checking import CheckDataConfig as CheckDataConfig
    from slotcon_tf.runs.checking import check_data as check_data
    from slotcon_tf.runs.converting import ConvertConfig as ConvertConfig
    from slotcon_tf.runs.converting import convert as convert
    from slotcon_tf.runs.detection_config import DetectionConfig as DetectionConfig
    from slotcon_tf.runs.detection_run import finetune_detection as finetune_detection
    from slotcon_tf.runs.evaluating import EvaluateConfig as EvaluateConfig
    from slotcon_tf.runs.evaluating import evaluate as evaluate
    from slotcon_tf.runs.export_config import ExportConfig as ExportConfig
    from slotcon_tf.runs.exporting import export as export
    from slotcon_tf.runs.finetune_config import FinetuneConfig as FinetuneConfig
    from slotcon_tf.runs.finetuning import finetune as finetune
    from slotcon_tf.runs.meeting import HostError as HostError
    from slotcon_tf.runs.planning import plan as plan
    from slotcon_tf.runs.preparing import PrepareConfig as PrepareConfig
    from slotcon_tf.runs.preparing import prepare as prepare
    from slotcon_tf.runs.pretrain_config import PretrainConfig as PretrainConfig
    from slotcon_tf.runs.pretraining import pretrain as pretrain
    from slotcon_tf.runs.products import RunUnfinished as RunUnfinished
    from slotcon_tf.runs.run_plan import Plan as Plan
    from slotcon_tf.runs.signals import RunStopped as RunStopped
    from slotcon_tf.runs.visualizing import VisualizeConfig as VisualizeConfig
    from slotcon_tf.runs.visualizing import visualize as visualize

__all__ = [
    "CheckDataConfig",
    "ConvertConfig",
    "DetectionConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FinetuneConfig",
    "HostError",
    "Plan",
    "PrepareConfig",
    "PretrainConfig",
    "RunStopped",
    "RunUnfinished",
    "VisualizeConfig",
    "check_data",
    "convert",
    "evaluate",
    "export",
    "finetune",
    "finetune_detection",
    "plan",
    "prepare",
    "pretrain",
    "visualize",
]
# Imported where they are asked for: most of what is here needs none of them.
_PLACES = {
    "CheckDataConfig": "checking",
    "ConvertConfig": "converting",
    "DetectionConfig": "detection_config",
    "EvaluateConfig": "evaluating",
    "ExportConfig": "export_config",
    "FinetuneConfig": "finetune_config",
    "HostError": "meeting",
    "Plan": "run_plan",
    "PrepareConfig": "preparing",
    "PretrainConfig": "pretrain_config",
    "RunStopped": "signals",
    "RunUnfinished": "products",
    "VisualizeConfig": "visualizing",
    "check_data": "checking",
    "convert": "converting",
    "evaluate": "evaluating",
    "export": "exporting",
    "finetune": "finetuning",
    "finetune_detection": "detection_run",
    "plan": "planning",
    "prepare": "preparing",
    "pretrain": "pretraining",
    "visualize": "visualizing",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
