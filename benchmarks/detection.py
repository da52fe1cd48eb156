"""A training step of Mask R-CNN, part by part, beside torchvision's.

    python -m benchmarks.detection
    python -m benchmarks.detection --torch_python=/path/to/bin/python

ResNet-50 with its pyramid, four convolutions with batch normalisation in both heads, 80
classes, images of 800 x 1216 pixels, a batch of two, everything trained. Both compute
the same layers; torchvision samples ROI-align at 2 x 2 points of a bin, and its masks
are bit maps of boxes. Both take turns, each time in a process of its own, of which the
peak memory is; seconds of the processor mean more than those of the clock where others
use the machine too. Shares come from TensorFlow's profiler, by name scope; it sees the
thread that runs an operation.
"""

import dataclasses
import statistics
import sys

from benchmarks.common import machine
from benchmarks.detection_cost import PARTS, Case, measure, measure_torchvision
from benchmarks.own_process import in_own_process
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorStepConfig(Config):
    arch: str = setting("resnet50", "Encoder, of both libraries.")
    height: int = setting(800, "Pixels; a multiple of 32.", low=64)
    width: int = setting(1216, "Pixels; a multiple of 32.", low=64)
    batch_size: int = setting(2, "Images.", low=1)
    objects: int = setting(16, "Objects in an image.", low=1)
    precision: str = setting(
        "float32", "Of this project.", choices=("float32", "mixed_bfloat16")
    )
    turns: int = setting(2, "Processes of each.", low=1)
    rounds: int = setting(2, "Timed steps of a process.", low=1)
    parts: bool = setting(True, "Profile the parts of a step.")
    torch_python: str = setting("", "Python that has torchvision. Empty: this one.")


def measure_all(config: DetectorStepConfig) -> None:
    names = {field.name for field in dataclasses.fields(Case)}
    values = {k: v for k, v in dataclasses.asdict(config).items() if k in names}
    case, others = Case(**{**values, "parts": False}), config.torch_python
    print(f"{machine()}\n{describe(case)}", flush=True)
    costs = {}
    for turn in range(config.turns):
        last = config.parts and turn == config.turns - 1
        ours = in_own_process(measure, dataclasses.replace(case, parts=last))
        costs.setdefault("slotcon_tf", []).append(ours)
        theirs = measure_torchvision(case, others or sys.executable)
        if theirs is not None:
            costs.setdefault("torchvision", []).append(theirs)
    print(table(costs), flush=True)
    if "torchvision" not in costs:
        print("torchvision is not installed: nothing beside it.")
    if config.parts:
        print(f"\n{parts_table(costs['slotcon_tf'][-1].parts)}")


def describe(case):
    return (
        f"{case.arch}, {case.height} x {case.width} px, batch {case.batch_size}, "
        f"{case.objects} objects in an image, {case.classes} classes, {case.precision}"
    )


def table(costs):
    """Medians of the seconds, and the least peak, of each library."""
    head = ("step s", "processor s", "peak MiB")
    lines = [f"{'':14}" + "".join(f"{name:>13}" for name in head)]
    for name, found in costs.items():
        wall = statistics.median([x for cost in found for x in cost.wall])
        processor = statistics.median([x for cost in found for x in cost.processor])
        peak = min(cost.peak for cost in found)
        numbers = f"{wall:13.2f}{processor:13.2f}{peak:13.0f}"
        lines.append(f"{name:14}{numbers}   {found[0].version}")
    return "\n".join(lines)


def parts_table(parts):
    total = sum(forth + back for forth, back in parts.values())
    lines = [f"{'part':40}{'forward':>10}{'backward':>10}{'both':>10}"]
    for scope, (forth, back) in parts.items():
        shares = (forth / total, back / total, (forth + back) / total)
        numbers = "".join(f"{share:10.1%}" for share in shares)
        lines.append(f"{PARTS.get(scope, scope):40}{numbers}")
    return "\n".join(lines)


main = Command("detection", DetectorStepConfig, measure_all, __doc__)

if __name__ == "__main__":
    main()
