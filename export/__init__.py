import slotcon_tf  # noqa: F401  First of all: oneDNN is on before TensorFlow.
