"""Training seconds of single convolutions: Keras's and ours, with oneDNN and without.

    python -m benchmarks.convolutions

Each row is one convolution of the family, forward and both gradients. With oneDNN and
without are processes of their own; ours and Keras's take turns in each.
"""

import dataclasses
import statistics

from benchmarks.own_process import in_own_process
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionsConfig(Config):
    rounds: int = setting(5, "Timed calls of each.", low=1)


# Name, then images, edge of the map, channels, filters, kernel, stride, dilation,
# groups. Padding is that of the family: even with stride 1, done before with others.
SHAPES = {
    "quickstart, stage 3": (32, 4, 256, 256, 3, 1, 1, 1),
    "quickstart, stage 4, dilated": (32, 4, 512, 512, 3, 1, 2, 1),
    "small.flags, stage 4, dilated": (16, 8, 512, 512, 3, 1, 2, 1),
    "ResNet-18, 112 px, stage 4": (32, 4, 512, 512, 3, 1, 1, 1),
    "ResNet-18, 112 px, to stage 4": (32, 9, 256, 512, 3, 2, 1, 1),
    "ResNet-50, 224 px, stage 2": (8, 28, 128, 128, 3, 1, 1, 1),
    "ResNet-50, stage 4": (8, 7, 512, 512, 3, 1, 1, 1),
    "ResNet-50, stage 4, 1x1": (8, 7, 512, 2048, 1, 1, 1, 1),
    "ResNet-50, shortcut to stage 4": (8, 14, 1024, 2048, 1, 2, 1, 1),
    "ResNet-50, stride 16, stage 4": (8, 14, 512, 512, 3, 1, 2, 1),
    "ResNet-50, stride 8, stage 4": (2, 28, 512, 512, 3, 1, 4, 1),
    "FCN head, dilation 6": (1, 64, 512, 256, 3, 1, 6, 1),
    "ResNeXt, stage 3, 32 groups": (8, 14, 1024, 1024, 3, 1, 1, 32),
    "ResNeXt, stage 4, 32 groups": (8, 7, 2048, 2048, 3, 1, 1, 32),
}


def measure_all(config: ConvolutionsConfig) -> None:
    found = {}
    for onednn in (True, False):
        machine, found[onednn] = in_own_process(measure, config.rounds, onednn=onednn)
        print(machine, flush=True)
    head = ("Keras, on", "ours, on", "Keras, off", "ours, off", "ours off/on")
    print(
        f"\n{'milliseconds; oneDNN on or off':34}" + "".join(f"{h:>13}" for h in head)
    )
    for name in SHAPES:
        (keras_on, own_on), (keras_off, own_off) = found[True][name], found[False][name]
        times = (keras_on, own_on, keras_off, own_off)
        row = "".join(f"{1e3 * seconds:13.1f}" for seconds in times)
        print(f"{name:34}{row}{own_off / own_on:13.2f}")


def measure(rounds):
    """Times every shape in this process.

    Returns:
        The machine, with its oneDNN, and a dict of name to the median seconds of
        Keras's layer and of ours.
    """
    import keras
    import tensorflow as tf

    from benchmarks.common import in_turns, machine
    from slotcon_tf.encoders.convolution import Conv2D

    found = {}
    for name, (images, edge, channels, filters, *settings) in SHAPES.items():
        kernel, stride, dilation, groups = settings
        x = tf.random.stateless_normal((images, edge, edge, channels), (0, 1))
        runs = {}
        for kind in (keras.layers.Conv2D, Conv2D):
            layer = kind(
                filters,
                kernel,
                strides=stride,
                dilation_rate=dilation,
                groups=groups,
                padding="same" if stride == 1 else "valid",
                use_bias=False,
            )
            layer.build(x.shape)
            runs[kind] = step(layer, x)
        seconds = in_turns(runs, rounds, warmup=1)
        found[name] = [statistics.median(seconds[kind]) for kind in runs]
    return machine(), found


def step(layer, x):
    """Function that computes both gradients and waits for them."""
    import tensorflow as tf

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(layer(x)))
        dx, dkernel = tape.gradient(total, [x, layer.kernel.value])
        # A number of each: what nobody asks for would not be computed.
        return tf.reshape(dx, [-1])[0] + tf.reshape(dkernel, [-1])[0]

    return lambda: float(gradients(x))


main = Command("convolutions", ConvolutionsConfig, measure_all, __doc__)

if __name__ == "__main__":
    main()
