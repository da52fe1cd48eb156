"""What is measured while a segmenter trains."""

import keras

REPORTED = ("miou", "pixel_accuracy", "mean_accuracy")


class Validation(keras.callbacks.Callback):
    """Adds `val_miou` and the others to an epoch's logs.

    Placed before the callbacks that write logs.

    Args:
        measure: Function without arguments that returns what `evaluate` returns.
        record: Function of those scores, for a file.
    """

    def __init__(self, measure, record=lambda scores: None):
        super().__init__()
        self.measure = measure
        self.record = record

    def on_epoch_end(self, epoch, logs=None):
        scores = self.measure()
        self.record(scores)
        if logs is not None:
            logs.update({f"val_{name}": scores[name] for name in REPORTED})
