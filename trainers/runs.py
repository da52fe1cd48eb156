"""Trained models: of a run, finished or not, or of anything pretrained."""

import json
import pathlib

import tensorflow as tf

from slotcon_tf.files import write_text
from slotcon_tf.interop import load_pretrained
from slotcon_tf.interop.pretrained import MODEL_FILE
from slotcon_tf.slotcon import SlotCon
from trainers.checkpoints import STATE, checkpoint_paths

_CONFIG = "model.json"


def write_model_config(workdir, model):
    """Writes what `load_trained` needs to build the model of a run again."""
    text = json.dumps(model.get_config(), indent=2)
    write_text(workdir / _CONFIG, text + "\n")


def load_trained(source, **options):
    """The model of a run's newest checkpoint, or a pretrained one.

    Args:
        source: Work directory of a run, or what `load_pretrained` takes. A run that has
            not ended is read from its newest checkpoint.
        **options: Of `load_pretrained`.

    Returns:
        As `load_pretrained`: a `SlotCon` or an encoder, and a report or None.

    Raises:
        FileNotFoundError, ValueError: As `load_pretrained`.
    """
    workdir = pathlib.Path(source)
    newest = next(iter(checkpoint_paths(workdir / "checkpoints")), None)
    config = workdir / _CONFIG
    if (workdir / MODEL_FILE).exists() or newest is None or not config.exists():
        return load_pretrained(source, **options)
    model = SlotCon.from_config(json.loads(config.read_text()))
    checkpoint = tf.train.Checkpoint(model=model)
    checkpoint.read(str(newest / STATE)).expect_partial()
    return model, None
