"""Cost of a training step next to the passes that it cannot avoid.

    python -m benchmarks.step
    python -m benchmarks.step --device=GPU --precision=mixed_bfloat16 --batch_scale=16

The *ideal* is the bare encoder and projector: two forward and backward passes of the
student and two forward passes of the teacher, in one graph, with no loss, no update and
no other part of the method. Step and ideal run in turns in one process; the ratio is
the median over rounds. Every case has a process of its own, so that peak memory is its
own. The parts come from TensorFlow's profiler, by name scope.
"""

import concurrent.futures
import dataclasses
import multiprocessing

from absl import app, flags

from benchmarks.step_cost import CASES, PARTS, RESNET50, measure, startup
from trainers.command_line import run_main

FLAGS = flags.FLAGS
_OWN = {"module_name": "benchmarks.step"}
flags.DEFINE_list("cases", ["resnet18", "resnet50", "prototypes"], "Which.", **_OWN)
flags.DEFINE_enum("device", "CPU", ("CPU", "GPU"), "Where the step runs.", **_OWN)
flags.DEFINE_list("precision", ["float32"], "float32, mixed_bfloat16.", **_OWN)
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
    shown = False
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
                machine, rows, parts = in_own_process(measure, case)
                if not shown:
                    print(machine)
                    shown = True
                print(f"\n{describe(case)}\n{table(rows)}", flush=True)
                if parts:
                    print(f"\n{parts_table(parts)}", flush=True)
    if FLAGS.startup:
        case = dataclasses.replace(RESNET50, device=FLAGS.device)
        print(f"\nstart-up, {case.arch}:\n{in_own_process(startup, case)}")


def in_own_process(function, case):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, case).result()


def describe(case):
    return (
        f"{case.arch}, {case.image_size} px, batch {case.batch_size}, heads "
        f"{case.hidden_dim}/{case.projection_dim}, {case.precision}, "
        f"jit_compile={case.jit_compile}, {case.device}"
    )


def table(rows):
    head = ("K", "step s", "ideal s", "step/ideal", "images/s", "peak MiB", "queries")
    lines = ["".join(f"{name:>11}" for name in head)]
    for k, step, bare, ratio, rate, peak, share in rows:
        lines.append(
            f"{k:11d}{step:11.3f}{bare:11.3f}{ratio:11.3f}{rate:11.2f}{peak:11.0f}"
            f"{share:11.1%}"
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
