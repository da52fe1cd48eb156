import slotcon_tf  # noqa: F401  First of all: it turns oneDNN on before TensorFlow.
