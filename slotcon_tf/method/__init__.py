"""SlotCon itself, to be read beside the paper."""

from slotcon_tf.method.networks import GroupingNetwork, MLPHead, SemanticGrouping
from slotcon_tf.method.slotcon import SlotCon

__all__ = ["GroupingNetwork", "MLPHead", "SemanticGrouping", "SlotCon"]
