"""Cost of a training step next to the passes that it cannot avoid.

    python -m benchmarks.step
    python -m benchmarks.step --device=GPU --precision=mixed_bfloat16 --batch_scale=16

The *ideal* is the bare encoder and projector: two forward and backward passes of the
student and two forward passes of the teacher, in one graph, with no loss, no update and
no other part of the method. Step and ideal run in turns in one process; the ratio is
the median over rounds. Every case has a process of its own, so that peak memory is its
own, and so that TensorFlow, which decides about oneDNN when it is imported, computes
once with it and once without. The parts come from TensorFlow's profiler, by name scope.
"""

import dataclasses

from absl import app, flags

from benchmarks.own_process import in_own_process
from benchmarks.step_cost import CASES, PARTS, RESNET50, measure, startup
from slotcon_tf.runs.command_line import run_main

FLAGS = flags.FLAGS
_OWN = {"module_name": "benchmarks.step"}
flags.DEFINE_list("cases", list(CASES), "Which.", **_OWN)
flags.DEFINE_enum("device", "CPU", ("CPU", "GPU"), "Where the step runs.", **_OWN)
flags.DEFINE_list("precision", ["float32"], "float32, mixed_bfloat16.", **_OWN)
flags.DEFINE_list("onednn", ["on", "off"], "On CPUs: on, off, or both.", **_OWN)
flags.DEFINE_list("jit_compile", ["auto"], "auto, true, false.", **_OWN)
flags.DEFINE_integer("rounds", 7, "Timed steps of each.", 1, **_OWN)
flags.DEFINE_integer("batch_scale", 1, "Multiplies the batch sizes.", 1, **_OWN)
flags.DEFINE_bool("parts", True, "Profile the parts of a step.", **_OWN)
flags.DEFINE_bool("startup", True, "Time to the first step of `fit`.", **_OWN)


def main(argv):
    del argv
    unknown = set(FLAGS.cases) - set(CASES)
    if unknown:
        raise app.UsageError(f"--cases knows {list(CASES)}. Received: {unknown}.")
    unknown = set(FLAGS.onednn) - {"on", "off"}
    if unknown or not FLAGS.onednn:
        raise app.UsageError(f"--onednn takes on, off or both. Received: {unknown}.")
    settings = [state == "on" for state in FLAGS.onednn]
    if FLAGS.device == "GPU":
        settings = [None]
    told = set()
    for name in FLAGS.cases:
        for precision in FLAGS.precision:
            for jit_compile in FLAGS.jit_compile:
                case = dataclasses.replace(
                    CASES[name],
                    batch_size=CASES[name].batch_size * FLAGS.batch_scale,
                    device=FLAGS.device,
                    precision=precision,
                    jit_compile=jit_compile,
                    rounds=FLAGS.rounds,
                    parts=FLAGS.parts and CASES[name].parts,
                )
                rows, parts = {}, {}
                for state in settings:
                    machine, rows[state], parts[state] = in_own_process(
                        measure, case, onednn=state
                    )
                    if machine not in told:
                        print(machine, flush=True)
                        told.add(machine)
                print(f"\n{describe(case)}\n{table(rows)}", flush=True)
                shown = parts[settings[0]]
                if shown:
                    print(f"\n{parts_table(shown)}", flush=True)
    if FLAGS.startup:
        case = dataclasses.replace(RESNET50, device=FLAGS.device)
        print(f"\nstart-up, {case.arch}:\n{in_own_process(startup, case)}")


def describe(case):
    return (
        f"{case.arch}, {case.image_size} px, batch {case.batch_size}, heads "
        f"{case.hidden_dim}/{case.projection_dim}, {case.precision}, "
        f"jit_compile={case.jit_compile}, {case.device}"
    )


def table(found):
    """Rows of a case under each setting of oneDNN, one below the other.

    Args:
        found: Dict of setting (True, False or None) to rows of `measure`.
    """
    head = ("K", "step s", "ideal s", "step/ideal", "images/s", "peak MiB", "queries")
    head = ("oneDNN", *head, "step/first")
    lines = ["".join(f"{name:>11}" for name in head)]
    names = {True: "on", False: "off", None: "-"}
    firsts = [row[1] for row in next(iter(found.values()))]
    for setting, rows in found.items():
        for (k, step, bare, ratio, rate, peak, share), first in zip(
            rows, firsts, strict=True
        ):
            lines.append(
                f"{names[setting]:>11}{k:11d}{step:11.3f}{bare:11.3f}{ratio:11.3f}"
                f"{rate:11.2f}{peak:11.0f}{share:11.1%}{step / first:11.2f}"
            )
    return "\n".join(lines)


def parts_table(parts):
    total = sum(parts.values())
    lines = [f"{'part':38}{'share':>8}"]
    for scope, seconds in parts.items():
        lines.append(f"{PARTS.get(scope, scope):38}{seconds / total:8.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main, "benchmarks.step")
