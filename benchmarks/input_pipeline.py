"""Images per second of the input pipeline, next to a Pillow and NumPy one.

    python -m benchmarks.input_pipeline

Both run in turns on the same generated 640x480 JPEGs with the same recipe. "Per core"
is per second of processor time, of all threads together, which other work on the
machine disturbs little. Then come the stages of each, the whole machine, and the memory
over many images. The baseline does what torchvision does with PIL images.
"""

import dataclasses
import functools
import os
import resource
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from tqdm import tqdm

from benchmarks.common import generate
from slotcon_tf.data import crop_pair_dataset, open_source, photometric
from slotcon_tf.data.crops import crop_views, random_crop_pair
from slotcon_tf.data.recipe import NUMBERS, distortions, draw_numbers
from slotcon_tf.images import decode_image
from slotcon_tf.images.statistics import IMAGENET_MEAN, IMAGENET_STD
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputPipelineConfig(Config):
    image_size: int = setting(224, "Edge of the views, pixels.", low=1)
    files: int = setting(64, "JPEGs that are generated.", low=1)
    rounds: int = setting(5, "Timed calls of each.", low=1)
    memory_images: int = setting(10_000, "Images of the memory test; 0: none.", low=0)


_BATCH = 32


def measure(config: InputPipelineConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = generate(folder, config.files)
        sizes = [path.stat().st_size for path in paths]
        print(
            f"{len(paths)} JPEGs, 640x480, {np.mean(sizes) / 1000:.0f} kB each; "
            f"views of {config.image_size} px; TensorFlow {tf.__version__}"
        )
        compare(folder, paths, config)
        stages(paths, config)
        whole_machine(folder, config)
        if config.memory_images:
            memory(folder, config)


def baseline_pair(path, boxes, parameters, size):
    """Decode, two crops, colours, normalisation: Pillow and NumPy, one image."""
    image = Image.open(path).convert("RGB")
    pairs = zip(boxes, parameters, strict=True)
    return [baseline_view(image, box, drawn, size) for box, drawn in pairs]


def draw_all(count):
    """The recipe's choices for `count` images, drawn ahead as NumPy arrays."""
    numbers = np.random.default_rng(0).random((count, NUMBERS), dtype=np.float32)
    boxes = [random_crop_pair(480, 640, row, 0.08) for row in numbers]
    drawn = {
        view: {name: value.numpy() for name, value in parameters.items()}
        for view, parameters in distortions(tf.constant(numbers)).items()
    }
    parameters = [
        [{name: value[i] for name, value in drawn[view].items()} for view in "ab"]
        for i in range(count)
    ]
    return numbers, boxes, parameters


def baseline_view(image, box, parameters, size):
    top, left, height, width = map(int, box)
    view = image.crop((left, top, left + width, top + height))
    view = view.resize((size, size), Image.BICUBIC)
    return baseline_colours(view, parameters)


def baseline_colours(view, parameters):
    if parameters["jitter"]:
        for operation in parameters["order"]:
            view = _jitter(view, operation, float(parameters["factors"][operation]))
    if parameters["grayscale"]:
        view = Image.merge("RGB", [view.convert("L")] * 3)
    if parameters["blur_sigma"] > 0:
        view = view.filter(ImageFilter.GaussianBlur(float(parameters["blur_sigma"])))
    if parameters["solarize"]:
        view = ImageOps.solarize(view, 128)
    pixels = np.asarray(view, np.float32) / 255
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return (pixels - np.float32(mean)) / np.float32(std)


def _jitter(view, operation, factor):
    if operation == photometric.HUE:
        h, s, v = view.convert("HSV").split()
        turned = np.asarray(h) + np.uint8(int(factor * 255) % 256)
        return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    return kinds[operation](view).enhance(factor)


def pipeline(folder, config, augment_on="host"):
    """The dataset that is measured, and its batch size."""
    batch = min(_BATCH, config.files)
    dataset = crop_pair_dataset(
        open_source("folder", folder),
        batch_size=batch,
        image_size=config.image_size,
        augment_on=augment_on,
        epochs=None,
    )
    return dataset, batch


def compare(folder, paths, config):
    """Both pipelines in turns; medians of the rates and of the ratio in each turn."""
    _, boxes, parameters = draw_all(len(paths))
    streams = {on: pipeline(folder, config, on) for on in ("host", "device")}

    def baseline():
        for image in zip(paths, boxes, parameters, strict=True):
            baseline_pair(*image, config.image_size)
        return len(paths)

    def ours(on):
        dataset, batch = streams[on]
        return batch * sum(1 for _ in dataset.take(6 * len(paths) // batch))

    runs = {
        "Pillow + NumPy": baseline,
        "ours, colours on the host": functools.partial(ours, "host"),
        "ours, colours on the device": functools.partial(ours, "device"),
    }
    rates = {name: [] for name in runs}
    for run in runs.values():
        run()  # compiles, fills the disk cache
    for _ in range(config.rounds):
        for name, run in runs.items():
            start = time.process_time()
            rates[name].append(run() / (time.process_time() - start))
    print(f"\n{'per core':30}{'images/s':>10}{'ratio':>8}")
    for name, values in rates.items():
        pairs = zip(values, rates["Pillow + NumPy"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:30}{statistics.median(values):10.1f}{ratio:8.2f}")


def stages(paths, config):
    """Milliseconds of processor time per image of each stage."""
    size = config.image_size
    numbers, boxes, drawn = draw_all(len(paths))
    encoded = [path.read_bytes() for path in paths]
    pictures = [decode_image(data) for data in encoded]
    views = np.stack(
        [
            crop_views(p, n, size, 0.08)[0]
            for p, n in zip(pictures, numbers, strict=True)
        ]
    )
    chunk = min(16, len(paths))
    parameters = distortions(tf.constant(numbers[:chunk]))
    batch = {f"view_{v}": tf.constant(views[:chunk, i]) for i, v in enumerate("ab")}
    batch |= {f"distortion_{v}": parameters[v] for v in "ab"}
    pillow = [Image.fromarray(p) for p in pictures]
    small = [[Image.fromarray(v) for v in pair] for pair in views]
    each = range(len(paths))

    @tf.function
    def draw():
        return tf.map_fn(
            lambda position: draw_numbers(0, position),
            tf.range(256, dtype=tf.int64),
            fn_output_signature=tf.float32,
        )

    def crop_pillow(i):
        for top, left, h, w in boxes[i].tolist():
            pillow[i].crop((left, top, left + w, top + h)).resize(
                (size, size), Image.BICUBIC
            )

    rows = (
        ("ours: decode", lambda: [decode_image(d) for d in encoded], len(encoded)),
        (
            "Pillow: two crops resized",
            lambda: [crop_pillow(i) for i in each],
            len(encoded),
        ),
        (
            "Pillow: colours of two views",
            lambda: [
                baseline_colours(small[i][v], drawn[i][v]) for i in each for v in (0, 1)
            ],
            len(encoded),
        ),
        ("ours: random numbers", draw, 256),
        (
            "ours: two crops resized",
            lambda: [crop_views(pictures[i], numbers[i], size, 0.08) for i in each],
            len(encoded),
        ),
        (
            "ours: colours of two views",
            lambda: photometric.apply_distortions(batch),
            chunk,
        ),
    )
    print(f"\n{'stage':30}{'ms/image':>10}")
    for name, run, count in rows:
        run()
        times = []
        for _ in range(config.rounds):
            start = time.process_time()
            run()
            times.append((time.process_time() - start) / count * 1e3)
        print(f"{name:30}{statistics.median(times):10.2f}")


def whole_machine(folder, config):
    """Images per second on all cores, as training uses it."""
    dataset, batch = pipeline(folder, config)
    stream = iter(dataset)
    for _ in range(4):
        next(stream)
    steps = 20
    start = time.perf_counter()
    for _ in range(steps):
        next(stream)
    rate = steps * batch / (time.perf_counter() - start)
    print(f"\n{os.cpu_count()} cores: {rate:.1f} images/s")


def memory(folder, config):
    """The process's largest memory after a tenth and after all of many images."""
    dataset, batch = pipeline(folder, config)
    steps = max(10, config.memory_images // batch)
    peaks = []
    for step, _ in enumerate(tqdm(dataset.take(steps), total=steps, unit="batch")):
        if step + 1 in (steps // 10, steps):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(
        f"\nlargest memory: {peaks[0]:.0f} MiB after {steps // 10 * batch} images, "
        f"{peaks[1]:.0f} MiB after {steps * batch}"
    )


main = Command("input_pipeline", InputPipelineConfig, measure, __doc__)

if __name__ == "__main__":
    main()
