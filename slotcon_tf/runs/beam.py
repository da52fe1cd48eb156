"""Work that Apache Beam's runners share among machines."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from slotcon_tf.extras import needed
from slotcon_tf.runs.command import CommandError

HELP = (
    "Options of an Apache Beam pipeline, such as --runner=DirectRunner, whose workers "
    "share the shards."
)


def run_pipeline(options: str, build: Callable[[Any], Any]) -> None:
    """Builds a pipeline, runs it, and waits for its end.

    Args:
        options: As on the command line of a Beam program: `--runner=FlinkRunner
            --flink_master=...`; "" for the runner on this machine.
        build: Function of the `apache_beam.Pipeline`.

    Raises:
        MissingExtra: If apache-beam is not installed.
        CommandError: If the pipeline fails.

    Example:
        >>> numbers = []
        >>> try:
        ...     run_pipeline("", lambda pipeline: numbers.append(pipeline))
        ... except ImportError as error:  # where the extra is not installed
        ...     numbers.append(error)
        >>> len(numbers)
        1
    """
    with needed("beam"):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
    build(pipeline)
    try:
        state = pipeline.run().wait_until_finish()
    except RuntimeError as error:
        # Beam wraps what a worker raised, and tells it at the end.
        last = str(error).strip().splitlines() or [type(error).__name__]
        raise CommandError(
            f"The pipeline must end well. Received: {last[0]}"
        ) from error
    if state not in (None, "DONE"):
        raise CommandError(f"The pipeline must end well. Received: it is {state}.")
