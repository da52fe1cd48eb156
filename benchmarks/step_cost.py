"""What a training step costs, part by part; see `benchmarks.step` for the command.

Everything heavy is imported inside the functions: `startup` times those imports.
"""

import dataclasses
import pathlib
import resource
import statistics
import tempfile
import time

# Scopes of the step's parts; an operation belongs to the first that is in its path.
PARTS = {
    "encoder": "encoder, four passes",
    "projector": "projector, four passes",
    "grouping": "prototypes",
    "AddN": "sum of both views' gradients",
    "predictor": "predictor",
    "alignment": "alignment",
    "grouping_loss": "grouping loss",
    "slot_contrastive_loss": "pooling, packing, contrastive loss",
    "teacher_update": "teacher's update",
    "lars": "optimizer",
    "center_update": "center's update",
    "health": "health metrics",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
        num_prototypes: One model, and one row, for each K.
        Others: As the flags and `SlotCon` have them.
    """

    arch: str
    image_size: int
    batch_size: int
    hidden_dim: int
    projection_dim: int
    num_prototypes: tuple
    output_stride: int = 32
    device: str = "CPU"
    precision: str = "float32"
    jit_compile: str = "auto"
    rounds: int = 7
    parts: bool = True


def of_recipe(name):
    """The step of a recipe, without its parts."""
    # Read here, not by slotcon_tf.recipes, which is in a package that is heavy.
    path = pathlib.Path(__file__).parents[1] / "slotcon_tf" / "recipes"
    lines = (path / f"{name}.flags").read_text().splitlines()
    values = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    sizes = ("image_size", "batch_size", "hidden_dim", "projection_dim")
    return Case(
        values["arch"],
        *(int(values[name]) for name in sizes),
        num_prototypes=(int(values["num_prototypes"]),),
        output_stride=int(values["output_stride"]),
        parts=False,
    )


RESNET18 = Case("resnet18", 112, 32, 512, 128, (64,))
RESNET50 = Case("resnet50", 224, 8, 4096, 256, (256,))
CASES = {
    "resnet18": RESNET18,
    "resnet50": RESNET50,
    "quickstart": of_recipe("quickstart"),
    "small": of_recipe("small"),
    "prototypes": dataclasses.replace(
        RESNET50, num_prototypes=(64, 256, 1024, 2048), parts=False
    ),
}


def measure(case):
    """Times step and ideal of a case in this process.

    Returns:
        Tuple of the machine with its oneDNN, rows (K, step seconds, ideal seconds,
        ratio, images/s, peak MiB, share of queries that are valid), and seconds per
        part of the step.
    """
    import keras
    import tensorflow as tf

    from benchmarks.common import in_turns, machine, median_ratio

    if case.device == "CPU":
        tf.config.set_visible_devices([], "GPU")
    keras.config.set_dtype_policy(case.precision)
    batch = view_pairs(case)
    runs, models, peaks = {}, {}, {}
    for num_prototypes in case.num_prototypes:
        model = build(case, num_prototypes)
        step = tf.function(model.train_step, jit_compile=uses_xla(case))
        runs[num_prototypes] = lambda step=step: wait(step(batch))
        runs[num_prototypes]()
        models[num_prototypes] = model
        peaks[num_prototypes] = peak_memory(case)
    first = case.num_prototypes[0]
    bare = tf.function(ideal(models[first]), jit_compile=uses_xla(case))
    runs["ideal"] = lambda: wait(bare(batch))
    seconds = in_turns(runs, case.rounds)
    rows = [
        (
            k,
            statistics.median(seconds[k]),
            statistics.median(seconds["ideal"]),
            median_ratio(seconds[k], seconds["ideal"]),
            case.batch_size / statistics.median(seconds[k]),
            peaks[k],
            valid_queries(models[k], batch),
        )
        for k in case.num_prototypes
    ]
    parts = profile(runs[first], models[first], case) if case.parts else {}
    return machine(), rows, parts


def view_pairs(case):
    """A batch from the input pipeline: crops of generated scenes."""
    from benchmarks.common import generate
    from slotcon_tf.data import crop_pair_dataset, open_source

    with tempfile.TemporaryDirectory() as folder:
        generate(folder, case.batch_size)
        dataset = crop_pair_dataset(
            open_source("folder", folder),
            batch_size=case.batch_size,
            image_size=case.image_size,
        )
        return next(iter(dataset))


def build(case, num_prototypes, **options):
    from slotcon_tf import LARS, SlotCon, backbone

    model = SlotCon(
        backbone(case.arch, output_stride=case.output_stride),
        total_steps=10_000,
        num_prototypes=num_prototypes,
        hidden_dim=case.hidden_dim,
        projection_dim=case.projection_dim,
        **options,
    )
    jit = {"auto": "auto", "true": True, "false": False}[case.jit_compile]
    model.compile(optimizer=LARS(0.1), jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    return model


def uses_xla(case):
    """What `compile(jit_compile="auto")` comes to: XLA on one GPU, none on a CPU."""
    if case.jit_compile == "auto":
        return case.device == "GPU"
    return case.jit_compile == "true"


def wait(values):
    """Waits for the device: one number must have arrived."""
    import keras

    return float(keras.tree.flatten(values)[0])


def ideal(model):
    """Function of a batch: the passes that a step cannot avoid, and nothing else."""
    import tensorflow as tf

    student, teacher = model.student, model.teacher
    variables = [
        *student.encoder.trainable_variables,
        *student.projector.trainable_variables,
    ]

    def passes(batch):
        def project(network, view):
            maps = network.encoder(batch[view], training=True)
            return network.projector(maps, training=True)

        with tf.GradientTape() as tape:
            projected = [project(student, view) for view in ("view_a", "view_b")]
            total = tf.add_n([tf.reduce_sum(tf.square(p)) for p in projected])
        found = [project(teacher, view) for view in ("view_a", "view_b")]
        gradients = tape.gradient(total, variables)
        # A number of every result: what nobody asks for would not be computed.
        numbers = [tf.reshape(x, [-1])[0] for x in (*gradients, *found)]
        return tf.add_n([tf.cast(number, tf.float32) for number in numbers])

    return passes


def peak_memory(case):
    """MiB: of the process on a CPU, of the card on a GPU."""
    import tensorflow as tf

    if case.device == "GPU":
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def valid_queries(model, batch):
    """Share of the packed rows that are queries, which the predictor needs."""
    import numpy as np

    from slotcon_tf.method.objective import active_slots

    found, rows = 0, 0
    for v, other in ("ab", "ba"):
        out = model.student(batch[f"view_{v}"], training=True)["assignment_logits"]
        key = model.teacher(batch[f"view_{other}"], training=True)["assignment_logits"]
        both = np.logical_and(active_slots(out), active_slots(key))
        found += both.sum()
        rows += len(both) * min(both.shape[1], out.shape[1] * out.shape[2])
    return found / rows


def profile(run, model, case):
    """Seconds of each part of a step; see `benchmarks.profiling`."""
    from benchmarks.profiling import by_scope, operation_times

    names = {model.encoder.name: "encoder"}
    times = operation_times(run, case.device)
    return by_scope(times, PARTS, names)


def startup(case):
    """Seconds until `fit` has done its first step, part by part, as text."""
    start = time.perf_counter()
    rows = []

    def lap(name):
        nonlocal start
        now = time.perf_counter()
        rows.append((name, now - start))
        start = now

    import tensorflow as tf

    lap("import tensorflow")
    from slotcon_tf.data import crop_pair_dataset  # noqa: F401

    lap("import slotcon_tf and its data")
    import keras

    batch = view_pairs(case)
    lap("draw images, first batch")
    model = build(case, case.num_prototypes[0])
    lap("build the model")
    traces = []
    step = model.train_step

    def traced(data):
        traces.append(1)
        return step(data)

    model.train_step = traced
    ends = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: ends.append(time.perf_counter())
    )
    data = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(
        data,
        epochs=2,
        steps_per_epoch=3,
        verbose=0,
        callbacks=[callback],
        shuffle=False,
    )
    rows.append(("first step: trace, compile, run", ends[0] - start))
    rows.append(("second step", ends[1] - ends[0]))
    lines = [f"  {name:34}{seconds:8.1f} s" for name, seconds in rows]
    lines.append(f"  {'traces of the step in two epochs':34}{len(traces):8d}")
    return "\n".join(lines)
