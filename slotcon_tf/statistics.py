"""How images are normalised: a mean and a deviation, which a model keeps with it."""

import dataclasses

import tensorflow as tf

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
    """Mean and standard deviation per channel, shares of the full range.

    Attributes:
        mean: Three numbers in [0, 1].
        std: Three positive numbers.

    Raises:
        ValueError: If they are not.
    """

    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD

    def __post_init__(self):
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            low = 0.0 if name == "mean" else 1e-4
            if len(values) != 3 or not all(low <= value <= 1.0 for value in values):
                raise ValueError(
                    f"{name} must be three numbers from {low:g} to 1, for red, green "
                    f"and blue, as shares of 255. Received: {name}={values}. "
                    "Divide grey levels by 255."
                )
            # Through the frozen class's back door: lists of a file become tuples.
            object.__setattr__(self, name, values)

    def normalize(self, images):
        """Grey levels 0 .. 255 (..., 3) to mean 0 and deviation 1 per channel."""
        return normalize(images, self.mean, self.std)


IMAGENET = ImageStatistics()


def normalize(images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """Grey levels to mean 0 and standard deviation 1 per channel.

    Args:
        images: float32 (..., 3), grey levels 0 .. 255.
        mean, std: Shares of 255, three numbers or a tensor; ImageNet's by default.
    """
    return (images - tf.constant(mean) * 255.0) / (tf.constant(std) * 255.0)


def statistics_of(model):
    """The statistics that a model's images are normalised with.

    Args:
        model: A `SlotCon`, a `Segmenter` or an encoder; one that keeps none has
            ImageNet's.
    """
    return getattr(model, "statistics", None) or IMAGENET


def chosen_statistics(mean, std, encoder):
    """Those that were asked for; where not, the encoder's own."""
    known = statistics_of(encoder)
    return ImageStatistics(
        known.mean if mean is None else mean, known.std if std is None else std
    )


def parse_statistics(mean, std):
    """The flags `--mean` and `--std`: three numbers with commas; "" or None: no word.

    Returns:
        Dict of `mean` and `std`, tuples or None.

    Raises:
        ValueError: If they cannot be read, or only one of them is given.
    """
    if bool(mean) != bool(std):
        raise ValueError(
            "--mean and --std must be given together. "
            f"Received: --mean={mean or ''} --std={std or ''}."
        )
    if not mean:
        return {"mean": None, "std": None}
    try:
        pair = [[float(x) for x in text.split(",")] for text in (mean, std)]
    except ValueError:
        raise ValueError(
            "--mean and --std must be three numbers with commas between them. "
            f"Received: --mean={mean} --std={std}."
        ) from None
    return dataclasses.asdict(ImageStatistics(*pair))
