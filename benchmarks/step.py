"""Cost of a training step next to the passes that it cannot avoid.

    python -m benchmarks.step
    python -m benchmarks.step --device=GPU --precisions=mixed_bfloat16 --batch_scale=16

The *ideal* is the bare encoder and projector: two forward and backward passes of the
student and two forward passes of the teacher, in one graph, with no loss, no update and
no other part of the method. Step and ideal run in turns in one process; the ratio is
the median over rounds. Every case has a process of its own, so that peak memory is its
own, and so that TensorFlow, which decides about oneDNN when it is imported, computes
once with it and once without. The parts come from TensorFlow's profiler, by name scope.
"""

import dataclasses

from benchmarks.own_process import in_own_process
from benchmarks.step_cost import CASES, PARTS, RESNET50, measure, startup
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, SettingError, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig(Config):
    cases: tuple[str, ...] = setting(tuple(CASES), "Which.")
    device: str = setting("CPU", "Where the step runs.", choices=("CPU", "GPU"))
    precisions: tuple[str, ...] = setting(
        ("float32",), "float32, mixed_bfloat16.", aliases=("precision",)
    )
    onednn: tuple[str, ...] = setting(("on", "off"), "On CPUs: on, off, or both.")
    jit_modes: tuple[str, ...] = setting(
        ("auto",), "auto, true, false.", aliases=("jit_compile",)
    )
    rounds: int = setting(7, "Timed calls of each.", low=1)
    batch_scale: int = setting(1, "Multiplies the batch sizes.", low=1)
    parts: bool = setting(True, "Profile the parts of a step.")
    startup: bool = setting(True, "Time to the first step of `fit`.")


def measure_all(config: StepConfig) -> None:
    for name, known in (("cases", CASES), ("onednn", ("on", "off"))):
        words = getattr(config, name)
        if not words or set(words) - set(known):
            raise SettingError(
                f"`{name}` must be of {', '.join(known)}. "
                f"Received: {name}={','.join(words)}."
            )
    settings = [state == "on" for state in config.onednn]
    if config.device == "GPU":
        settings = [None]
    told = set()
    for name in config.cases:
        for precision in config.precisions:
            for jit_compile in config.jit_modes:
                case = dataclasses.replace(
                    CASES[name],
                    batch_size=CASES[name].batch_size * config.batch_scale,
                    device=config.device,
                    precision=precision,
                    jit_compile=jit_compile,
                    rounds=config.rounds,
                    parts=config.parts and CASES[name].parts,
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
    if config.startup:
        case = dataclasses.replace(RESNET50, device=config.device)
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
    for state, rows in found.items():
        for (k, step, bare, ratio, rate, peak, share), first in zip(
            rows, firsts, strict=True
        ):
            lines.append(
                f"{names[state]:>11}{k:11d}{step:11.3f}{bare:11.3f}{ratio:11.3f}"
                f"{rate:11.2f}{peak:11.0f}{share:11.1%}{step / first:11.2f}"
            )
    return "\n".join(lines)


def parts_table(parts):
    total = sum(parts.values())
    lines = [f"{'part':38}{'share':>8}"]
    for scope, seconds in parts.items():
        lines.append(f"{PARTS.get(scope, scope):38}{seconds / total:8.1%}")
    return "\n".join(lines)


main = Command("step", StepConfig, measure_all, __doc__)

if __name__ == "__main__":
    main()
