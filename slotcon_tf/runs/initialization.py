"""A new run's first weights, from a pretrained model."""

from __future__ import annotations

import os

from absl import logging

from slotcon_tf.detection import MaskRCNN
from slotcon_tf.detection.copies import copy_detector
from slotcon_tf.images.statistics import statistics_of
from slotcon_tf.interop import copy_weights
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.loading import load_trained


def begin_as_detector(model: MaskRCNN, source: str | os.PathLike) -> None:
    """Gives a detector the weights of another, its pyramid and heads, too.

    Layers that have a part for each class stay random where the classes are others.

    Args:
        model: `MaskRCNN` of the run.
        source: As for `load_trained`: a run, a `.keras` file, or one of detectron2.

    Raises:
        FileNotFoundError: If the source is not there.
        ValueError: If it is damaged, no detector, or one of other sizes.

    Example:
        >>> import types
        >>> begin_as_detector(types.SimpleNamespace(), "runs/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: No pretrained model: runs/nowhere...
    """
    pretrained, _ = load_trained(source, detectors=True)
    if not isinstance(pretrained, MaskRCNN):
        raise ValueError(
            f"init_part=detector needs a detector. Received: {source}, a "
            f"{type(pretrained).__name__}. Set init_part=encoder."
        )
    try:
        kept = copy_detector(pretrained, model)
    except ValueError as error:
        raise ValueError(
            f"init_from={source}: {error} Set `channels` and `units` as it was "
            "trained, or init_part=encoder."
        ) from error
    logging.info("The detector begins as %s, but for %s", source, kept or "nothing")


def initialize(
    model: SlotCon,
    source: str | os.PathLike,
    part: str = "auto",
    prefix: str | None = None,
) -> None:
    """Gives a model the weights of a pretrained one; its step stays 0.

    Args:
        model: `slotcon_tf.SlotCon` of the run.
        source: As for `slotcon_tf.SlotCon.from_preset`, or an encoder's file.
        part: "model" takes student, teacher, predictor and center; "encoder" gives the
            pretrained encoder, the teacher's of a whole model, to both student and
            teacher, and leaves the rest random; "auto" takes what is there.
        prefix: Which encoder of a torch file with several; see `load_encoder`.

    Raises:
        FileNotFoundError: If the source is not there.
        ValueError: If it is damaged, has other sizes, or lacks the part.

    Example:
        >>> import types
        >>> model = types.SimpleNamespace(encoder=None)
        >>> initialize(model, "runs/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No pretrained model: runs/nowhere...
    """
    pretrained, _ = load_trained(
        source,
        output_stride=getattr(model.encoder, "output_stride", None),
        prefix=prefix,
    )
    theirs, ours = statistics_of(pretrained), statistics_of(model)
    if theirs != ours:
        logging.warning(
            "%s was trained on %s, this run has %s. Set `mean`, `std` and "
            "`pixel_range` to the former unless you mean it.",
            *(source, theirs, ours),
        )
    whole = isinstance(pretrained, SlotCon)
    if part == "model" and not whole:
        raise ValueError(
            f"init_part=model needs a whole SlotCon model. Received: {source}, an "
            "encoder alone. Set init_part=encoder."
        )
    if whole and part != "encoder":
        try:
            copy_weights(pretrained, model)
        except ValueError as error:
            raise ValueError(
                f"init_from={source}: {error} Set `arch`, `num_prototypes`, "
                "`hidden_dim` and `projection_dim` as it was trained, or "
                "init_part=encoder."
            ) from error
        logging.info("Student, teacher and predictor begin as %s", source)
        return
    encoder = pretrained.teacher.encoder if whole else pretrained
    values = encoder.get_weights()
    for network in (model.student, model.teacher):
        expected = [tuple(v.shape) for v in network.encoder.variables]
        if expected != [value.shape for value in values]:
            raise ValueError(
                f"init_from={source} must hold the encoder of `arch`. Received: "
                f"{encoder.name!r} with {len(values)} variables, where "
                f"{network.encoder.name!r} has {len(expected)}, or of other shapes. "
                "Set `arch` as it was trained."
            )
        network.encoder.set_weights(values)
    logging.info("The encoder begins as that of %s", source)
