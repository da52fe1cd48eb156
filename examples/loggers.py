"""Loggers for `--callbacks=loggers:NAME`, from the folder that this file lies in.

    cd examples
    slotcon-pretrain --data_dir=photos --callbacks=loggers:json_lines

Each function takes the configuration of the run and returns a Keras callback (or a list
of them), which is told of every epoch: losses, health of the groups, `val_` scores,
`images_per_second`. A copy of this file with your own project names is meant to lie
beside your data; what a function needs is imported when it is called.
"""

import dataclasses
import hashlib
import json
import math
import pathlib

import keras

PROJECT = "slotcon"


def json_lines(config):
    """A line of JSON per epoch, in log.jsonl of the work directory."""
    return JsonLines(pathlib.Path(config.workdir, "log.jsonl"))


class JsonLines(keras.callbacks.Callback):
    """What an epoch ends with, as a line of a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        finite = {name: v for name, v in numbers.items() if math.isfinite(v)}
        with self.path.open("a") as file:
            print(json.dumps({"epoch": epoch, **finite}), file=file)


def weights_and_biases(config):
    """A run of Weights & Biases; a run that goes on goes on there, too."""
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    # Runs in folders of one name are not one run.
    place = str(pathlib.Path(config.workdir).absolute())
    wandb.init(
        project=PROJECT,
        name=_name(config),
        id=hashlib.sha256(place.encode()).hexdigest()[:16],
        resume="allow",
        config=dataclasses.asdict(config),
    )
    return [WandbMetricsLogger(), _at_end(wandb.finish)]


def mlflow_run(config):
    """A run of MLflow, with the settings as its parameters."""
    import mlflow
    from mlflow.keras import MlflowCallback

    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=_name(config))
    mlflow.log_params(dataclasses.asdict(config))
    return [MlflowCallback(), _at_end(mlflow.end_run)]


def comet(config):
    """An experiment of Comet, with the settings as its parameters."""
    import comet_ml

    experiment = comet_ml.start(project_name=PROJECT)
    experiment.set_name(_name(config))
    experiment.log_parameters(dataclasses.asdict(config))
    return [experiment.get_callback("keras"), _at_end(experiment.end)]


def _at_end(close):
    """Closes a record when training ends; by a signal or an error, too."""
    return keras.callbacks.LambdaCallback(on_train_end=lambda logs: close())


def _name(config):
    """The work directory's name, which is the run's."""
    return pathlib.Path(config.workdir).absolute().name
