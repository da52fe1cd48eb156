"""What lets TF Serving compute requests that come at once together.

Off unless it is asked for: on a CPU it saves nothing (benchmarks/README.md). TF Serving
batches all signatures of a version or none. Requests of one batch must be of one size
beside the number of images: two clients that send pixels of different sizes to a
signature that takes any both get FAILED_PRECONDITION, "Tensors with name ... from
different tasks have different shapes and padding is turned off", and with padding they
would get features of images with a border. So a version says itself that it may be
batched, by a file that TF Serving reads with --enable_per_model_batching_parameters;
only one whose signatures have inputs of one size has that file. Image files are
strings, which are of one size, and become one square within the graph.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

from slotcon_tf.files import write_text

PARAMETERS_FILE = "batching_params.pbtxt"
TIMEOUT_MICROSECONDS = 5000  # that a request waits for others
MOST_BATCHES = 100  # waiting; more requests are refused (UNAVAILABLE)


def write_batching(
    folder: pathlib.Path, signatures: dict[str, tuple], sizes: Iterable[int]
) -> pathlib.Path:
    """Writes the parameters of a version that may be batched.

    Args:
        folder: Of the version.
        signatures: Of `ServedModel.signatures`.
        sizes: Batches that are computed, filled up to the next one; the largest is the
            most images of a request, too.

    Returns:
        The file's path.

    Raises:
        ValueError: If a signature takes inputs of any size, or there are no sizes.

    Example:
        >>> import tempfile, tensorflow as tf
        >>> files = {"embed": (None, [tf.TensorSpec([None], tf.string, "image_bytes")])}
        >>> path = write_batching(pathlib.Path(tempfile.mkdtemp()), files, (1, 8))
        >>> path.read_text().splitlines()[0]
        'max_batch_size { value: 8 }'
    """
    sizes, free = sorted(sizes), [n for n, s in signatures.items() if _any_size(s)]
    if free:
        raise ValueError(
            "Signatures must have inputs of one size where requests are batched. "
            f"Received: {', '.join(free)}, which take any. Give `signatures`, without "
            "them."
        )
    if not sizes:
        raise ValueError(
            "`batch_sizes` must have a size where requests are batched. Received: none."
        )
    lines = [
        f"max_batch_size {{ value: {sizes[-1]} }}",
        f"batch_timeout_micros {{ value: {TIMEOUT_MICROSECONDS} }}",
        f"max_enqueued_batches {{ value: {MOST_BATCHES} }}",
        *(f"allowed_batch_sizes: {size}" for size in sizes),
    ]
    path = folder / PARAMETERS_FILE
    write_text(path, "\n".join(lines) + "\n")
    return path


def _any_size(signature: tuple[Any, Any]) -> bool:
    return any(None in spec.shape[1:] for spec in signature[1])
