"""SlotCon itself, to be read beside the paper."""
