"""What a training step of Mask R-CNN costs; `benchmarks.detection` has the command."""

import dataclasses
import json
import pathlib
import resource
import subprocess
import tempfile

import numpy as np

from benchmarks.torchvision_step import timed

# Scopes of the step's parts; an operation belongs to the first that is in its path.
PARTS = {
    "encoder": "backbone",
    "pyramid": "feature pyramid",
    "proposal_head": "proposals: head",
    "proposals": "proposals: selection",
    "anchors": "proposals: matching, sampling, losses",
    "regions": "regions: matching, sampling",
    "box_pooling": "box: ROI-align",
    "box_head": "box: head",
    "box_losses": "box: losses",
    "mask_pooling": "mask: ROI-align",
    "mask_head": "mask: head",
    "mask_losses": "mask: targets, loss",
    "coupled_sgd": "optimizer",
    "norms": "all batch normalisation, backward",
    "pooling": "both ROI-aligns, backward",
}
BACKWARD = "gradient_tape"
# Gradients that are written by hand have no scope; their operations are told by type.
BY_HAND = {"FusedBatchNormGrad": "norms", "SparseTensorDenseMatMul": "pooling"}


@dataclasses.dataclass(frozen=True)
class Case:
    """What one process measures."""

    arch: str
    height: int
    width: int
    batch_size: int
    objects: int
    classes: int = 80
    precision: str = "float32"
    rounds: int = 2
    parts: bool = False


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one process: lists of a step's seconds, of the clock and of the processor.

    peak: MiB of the process; parts: of `PARTS` to seconds forward and backward.
    """

    wall: list
    processor: list
    peak: float
    version: str
    parts: dict


def measure(case):
    """`Cost` of this project's step."""
    import keras
    import tensorflow as tf

    from slotcon_tf import SGD, backbone
    from slotcon_tf.detection import MaskRCNN

    keras.config.set_dtype_policy(case.precision)
    names = tuple(f"class {i}" for i in range(case.classes))
    model = MaskRCNN(backbone(case.arch), class_names=names)
    model.compile(optimizer=SGD(0.0))
    model.optimizer.build(model.trainable_variables)
    batch = {name: tf.constant(value) for name, value in draw(case).items()}
    step = tf.function(model.train_step, autograph=False)

    def run():
        logs = step(batch)
        return float(logs["loss"])

    wall, processor = timed(run, case.rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts = profile(run, model) if case.parts else {}
    return Cost(wall, processor, peak, f"TensorFlow {tf.__version__}", parts)


def measure_torchvision(case, python):
    """`Cost` of torchvision's, by a Python that has torch; None if it has none."""
    script = pathlib.Path(__file__).with_name("torchvision_step.py")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "batch.npz"
        np.savez(path, **draw(case))
        words = [path, case.arch, case.classes, case.rounds]
        done = subprocess.run(
            [python, script, *map(str, words)], capture_output=True, text=True
        )
    if "No module named 'torch" in done.stderr:
        return None
    done.check_returncode()
    return Cost(**json.loads(done.stdout), parts={})


def draw(case):
    """A batch of noise with objects of all sizes, as numpy arrays."""
    rng = np.random.default_rng(0)
    number, objects = case.batch_size, case.objects
    size = np.array([case.width, case.height], np.float32)
    shape = (number, objects)
    sides = size * 0.8 * rng.uniform(0.2, 1, (*shape, 2)) ** 2
    corner = rng.uniform(size=(*shape, 2)) * (size - sides)
    boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    starts = np.stack([np.stack(corner, -1) for corner in corners], 2)
    images = rng.normal(size=(number, case.height, case.width, 3))
    return {
        "images": images.astype(np.float32),
        "sizes": np.full((number, 2), [case.height, case.width], np.int32),
        "boxes": boxes,
        "classes": rng.integers(0, case.classes, shape).astype(np.int32),
        "valid": np.ones(shape, bool),
        "starts": starts,
        "ends": np.roll(starts, -1, axis=2),
        "parts": np.zeros((*shape, 4), np.int32),
    }


def profile(run, model):
    """Seconds of each part, forward and backward, by name scope."""
    from benchmarks.profiling import by_scope, operation_times

    times = operation_times(run)
    forth, back = {}, {}
    for name, seconds in times.items():
        path, _, kind = name.partition(":")
        hand = next((part for word, part in BY_HAND.items() if word in kind), "")
        if path.startswith(BACKWARD) or (hand and "/" not in path):
            path = path if path.startswith(BACKWARD) else hand
            back[path] = back.get(path, 0) + seconds
        else:
            forth[path] = forth.get(path, 0) + seconds
    names = {model._stages().name: "encoder"}
    forth, back = (by_scope(part, PARTS, names) for part in (forth, back))
    return {name: (forth[name], back[name]) for name in forth}
