"""What groups and features are worth: metrics, probes, and how sure they are."""

from slotcon_tf.evaluation.metrics import (
    confusion_matrix,
    grouping_metrics,
    segmentation_metrics,
)

__all__ = ["confusion_matrix", "grouping_metrics", "segmentation_metrics"]
