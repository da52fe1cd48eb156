import trainers  # noqa: F401  First of all: slotcon_tf, or a command ends in one line.
