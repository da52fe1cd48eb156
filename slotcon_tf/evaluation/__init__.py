"""How well groups match true categories."""

from slotcon_tf.evaluation.metrics import confusion_matrix, grouping_metrics

__all__ = ["confusion_matrix", "grouping_metrics"]
