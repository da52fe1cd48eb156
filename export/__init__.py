import sys

try:
    import slotcon_tf  # noqa: F401  First of all: oneDNN is on before TensorFlow.
except ImportError as error:
    # A command ends in one line; "-m" is what Python looks for it under.
    if sys.argv[0] != "-m" or error.name != "keras":
        raise
    sys.exit(str(error))
