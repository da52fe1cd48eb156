"""Joins the tables of the parts that --shard=i/n made into one.

    python -m export.merge features-*-of-00004.npz --output=features.npz

All parts must be there, finished, and of the same images, version and settings: each
gap and each difference is told in a line, and nothing is written. Files of .npz and
.parquet and folders of .npy shards become any of these; one whole table alone is
written in another form.
"""

from __future__ import annotations

import dataclasses
import sys

import tensorflow as tf

from slotcon_client.extraction import is_file
from slotcon_client.merging import NotMerged, merge
from slotcon_client.objects import images_path
from slotcon_tf.data.reading import remote_errors, without_scheme
from slotcon_tf.runs.command import Command, CommandError
from slotcon_tf.runs.settings import Config, SettingError, setting

from .remote import files_of
from .tables import ENDINGS, check_packages


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeConfig(Config):
    """What is joined, and where it goes.

    Example:
        >>> MergeConfig(inputs=["a-*.npz"], output="a.npz").inputs
        ('a-*.npz',)
    """

    inputs: tuple[str, ...] = setting(
        None, "Tables, with commas between them; * and ? stand for letters."
    )
    output: str = setting(
        None, "File to write, .npz or .parquet; without an ending: folder of shards."
    )


def merge_tables(config: MergeConfig) -> None:
    """Joins tables, and prints what came of it.

    Args:
        config: Which, and where they go.

    Raises:
        SettingError: If there are none.
        CommandError: If they do not fit, after a line for each reason.
        ValueError, OSError: If they cannot be read or written.

    Example:
        >>> merge_tables(MergeConfig(inputs=["none-*.npz"], output="a.npz"))
        Traceback (most recent call last):
        slotcon_tf.runs.settings.SettingError: `inputs` must name tables. Received: \
inputs=none-*.npz, which names none.
    """
    paths = []
    for pattern in map(without_scheme, config.inputs):
        with remote_errors("Tables"):
            there = [pattern]
            if set("*?[") & set(pattern):
                there = sorted(tf.io.gfile.glob(pattern))
                # What parts of objects keep beside them, and leave to go on.
                beside = set(map(images_path, there))
                there = [p for p in there if p not in beside]
                there = [p for p in there if not p.endswith((".txt", ".partial"))]
        paths += there
    if not paths:
        raise SettingError(
            "`inputs` must name tables. Received: "
            f"inputs={','.join(config.inputs)}, which names none."
        )
    for path in (*paths, config.output):
        check_packages(path)
    output = without_scheme(config.output)
    if "." in output.rpartition("/")[2] and not is_file(output):
        raise SettingError(
            f"`output` must end in {' or '.join(ENDINGS)}, or in nothing for a folder. "
            f"Received: output={output}."
        )
    try:
        rows = merge(paths, output, files_of)
    except NotMerged as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        raise CommandError(
            "Tables must be all parts of one whole. Received: "
            f"{len(error.lines)} reasons against it, named above. Extract what is "
            "missing or differs anew."
        ) from None
    print(f"{rows} rows of {len(paths)} tables in {output}")


main = Command("merge", MergeConfig, merge_tables, __doc__, positionals=["inputs"])

if __name__ == "__main__":
    main()
