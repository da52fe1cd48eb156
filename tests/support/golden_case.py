"""The recorded runs of the original: weights and inputs from seeds, names mapped.

`tests/golden/*.npz` were recorded by running the authors' PyTorch code (commit
30ff33d) on a CPU; arrays that end in `_f64` are the same run in float64.
"""

import json
import pathlib
import zlib

import keras
import numpy as np
import tensorflow as tf

from slotcon_tf.encoders.resnet import backbone
from slotcon_tf.interop.names import model_entries
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.training.optimizers import LARS
from slotcon_tf.training.schedules import WarmupCosine

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "ckpt_tinyA.pth"
STEPS = 4
CASES = {"A": {"seed": 101, "width": 64}, "tinyA": {"seed": 111, "width": 8}}
SETTINGS = {"num_prototypes": 16, "hidden_dim": 64, "projection_dim": 32}


def draw(seed, name, shape):
    """The recorder's z(name, shape)."""
    key = [seed, zlib.crc32(name.encode())]
    return np.random.default_rng(key).standard_normal(tuple(shape)).astype(np.float32)


def view(seed, name, step, batch=8, size=64):
    """A view (B, size, size, 3), drawn as the recorder does."""
    fine = draw(seed, f"{name}_step{step}_fine", (batch, 3, size, size))
    coarse = draw(seed, f"{name}_step{step}_coarse", (batch, 3, size // 16, size // 16))
    coarse = coarse.repeat(16, axis=2).repeat(16, axis=3)
    return (fine + coarse).transpose(0, 2, 3, 1)


def initial_value(seed, key, shape, norms):
    """The recorder's value for a state-dict key, in float32."""
    module, leaf = key.rsplit(".", 1) if "." in key else ("", key)
    if leaf == "running_mean":
        return np.zeros(shape, np.float32)
    if leaf == "running_var":
        return np.ones(shape, np.float32)
    z = draw(seed, key, shape)
    if key == "center":
        return np.float32(0.05) * z
    if "slot_embed" in key:
        return z
    if module in norms:
        return (
            np.float32(1) + np.float32(0.1) * z
            if leaf == "weight"
            else (np.float32(0.1) * z)
        )
    if leaf == "bias":
        return np.float32(0.05) * z
    return z * np.sqrt(np.float32(2 / np.prod(shape[1:])))


def sample_indices(key, size):
    """The 16 places of a flattened tensor that were recorded."""
    start = zlib.crc32(key.encode())
    return (start + 2654435761 * np.arange(16, dtype=np.uint64)) % np.uint64(size)


class GoldenCase:
    """A recorded case: the model with its first weights, batches, and the numbers."""

    def __init__(self, name):
        self.name = name
        self.seed = CASES[name]["seed"]
        self.width = CASES[name]["width"]
        self.arrays = np.load(GOLDEN / f"case_{name}.npz")
        shapes = json.loads((GOLDEN / "shapes_A.json").read_text())
        self.shapes = {k: self._scaled(k, s) for k, (_, s) in shapes.items()}

    def _scaled(self, key, shape):
        """Shapes of case A with the encoder's widths divided."""
        if self.width == 64:
            return shape
        factor = 64 // self.width

        def scale(n):
            return n // factor if n >= 64 else n

        if key.startswith("encoder"):
            return [scale(n) for n in shape[:2]] + shape[2:]
        if "projector" in key and key.endswith("mlp.0.weight"):
            return [shape[0], scale(shape[1]), *shape[2:]]
        return shape

    def model(self, **compile_options):
        """SlotCon with the case's first weights, compiled with the case's LARS."""
        encoder = backbone("resnet18", width=self.width, input_shape=(64, 64, 3))
        model = SlotCon(encoder, total_steps=7, **SETTINGS)
        norms = {k[: -len(".running_mean")] for k in self.shapes if "running_mean" in k}
        entries = model_entries(model)
        wanted = {k for k in self.shapes if "num_batches_tracked" not in k}
        assert wanted == set(entries), wanted ^ set(entries)
        for key, entry in entries.items():
            entry.assign(initial_value(self.seed, key, self.shapes[key], norms))
        rate = WarmupCosine(peak=0.05, warmup_steps=2, total_steps=6)
        model.compile(optimizer=LARS(rate, l2=1e-3), **compile_options)
        # A strategy cannot create the buffers inside a traced step.
        model.optimizer.build(model.trainable_variables)
        return model

    def batch(self, step):
        dtype = keras.config.floatx()
        coords, flags = self.arrays["coords"][step], self.arrays["flags"][step]
        return {
            "view_a": view(self.seed, "crop0", step).astype(dtype),
            "view_b": view(self.seed, "crop1", step).astype(dtype),
            "overlap_a": coords[0],
            "overlap_b": coords[1],
            "flipped_a": flags[0],
            "flipped_b": flags[1],
        }

    def state_errors(self, model, after, suffix):
        """Largest errors of norms (relative) and samples (absolute) after a step."""
        keys = list(map(str, self.arrays["keys"]))
        norms = self.arrays[f"state_norm{suffix}"][after]
        samples = self.arrays[f"state_samples{suffix}"][after]
        worst = {"norm": (0.0, ""), "sample": (0.0, "")}
        for key, entry in model_entries(model).items():
            row = keys.index(key)
            value = entry.to_torch().astype(np.float64)
            norm = np.linalg.norm(value)
            error = abs(norm - norms[row]) / max(norms[row], 1e-3)
            worst["norm"] = max(worst["norm"], (error, key))
            flat = value.reshape(-1)
            got = flat[sample_indices(key, flat.size).astype(int)]
            error = np.abs(got - samples[row]).max()
            worst["sample"] = max(worst["sample"], (error, key))
        return worst


def distribute(strategy, model):
    """Function: global batch -> logs of a step on all replicas."""
    replicas = strategy.num_replicas_in_sync

    @tf.function(autograph=False)
    def step(batch):
        return strategy.run(model.train_step, args=(batch,))

    def run(batch):
        def part(context):
            i, size = context.replica_id_in_sync_group, len(batch["view_a"]) // replicas
            return {
                k: tf.constant(v[i * size : (i + 1) * size]) for k, v in batch.items()
            }

        logs = step(strategy.experimental_distribute_values_from_function(part))
        logs = {k: strategy.experimental_local_results(v) for k, v in logs.items()}
        for name, values in logs.items():
            np.testing.assert_array_equal(values[0], values[-1], err_msg=name)
        return {k: v[0] for k, v in logs.items()}

    return run
