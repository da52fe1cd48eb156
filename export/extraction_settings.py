"""Settings and steps that `export.client` and `export.extract` share."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

import tensorflow as tf

from slotcon_client.extraction import ROWS, SHARD_IMAGES, is_file, shard_path
from slotcon_tf.data.listing import list_images, read_list
from slotcon_tf.data.reading import remote_errors, without_scheme
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.settings import Config, SettingError, check_left_out, setting
from slotcon_tf.serving.warmup import OF_OBJECTS

from .detections import ENDING as RESULTS
from .detections import SIGNATURE as DETECT
from .detections import ResultWriter
from .extraction import Failed, Images, RequestError, report
from .remote import files_of
from .tables import ENDINGS, check_packages

IMAGES = "Folder of images, or a text file with a path per line."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionSettings(Config):
    """What is extracted, and where it goes.

    Example:
        >>> ExtractionSettings(images="photos", output="features.npz").outputs
        ('pooled',)
    """

    images: str = setting(None, IMAGES)
    output: str = setting(
        None,
        "File to write: .npz or .parquet; of signature=detect .json as well. Without "
        "an ending: folder of .npy shards.",
    )
    signature: str = setting(
        "image_bytes", "One that takes files; detect: a detector's."
    )
    outputs: tuple[str, ...] = setting(
        ("pooled",),
        "Outputs to keep; '': all. A .json has what it needs; rows of objects have "
        "all by default, but for the masks of instances.",
    )
    rows: str = setting(
        "images",
        "What a row is: objects are those of signature=objects and instances.",
        choices=ROWS,
    )
    shard: str | None = setting(
        None,
        "i/n: only the i-th of n equal parts of the images, from 0; the output's name "
        "tells which. slotcon-merge joins them.",
    )
    shard_images: int = setting(
        SHARD_IMAGES, "Images of each shard of a folder of .npy files.", low=1
    )
    annotations: str | None = setting(
        None,
        "For a .json: file in COCO's layout, whose numbers of images and categories "
        "are taken, by their names.",
    )
    pictures: str | None = setting(None, "Folder for every picture as a PNG file.")
    picture_score: float = setting(
        0.5, "Objects of a lower score are left out of the pictures.", low=0, high=1
    )
    batch_size: int | None = setting(
        None,
        "Images at once: of a request. Default: 8; of detect, which looks at images "
        "one by one, 1.",
        low=1,
    )
    concurrency: int = setting(4, "Requests at once.", low=1)
    max_image_mb: int = setting(20, "Larger files are not sent.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        ending = pathlib.Path(self.output).suffix
        if ending == RESULTS and self.signature != DETECT:
            raise SettingError(
                f"A {RESULTS} file is for objects: set signature={DETECT}. Received: "
                f"output={self.output} with signature={self.signature}."
            )
        if ending and ending not in (*ENDINGS, RESULTS):
            raise SettingError(
                f"`output` must end in {' or '.join(ENDINGS)}, or in {RESULTS} with "
                f"signature={DETECT}; a folder has no ending. Received: "
                f"output={self.output}."
            )
        if self.of_objects:
            check_left_out(self, ("rows", "shard"), f"for a {RESULTS} file")
        self.part  # noqa: B018  which may be none
        for name in ("annotations", "pictures"):
            if getattr(self, name) is not None and not self.of_objects:
                raise SettingError(
                    f"`{name}` is for an output that ends in {RESULTS}. Received: "
                    f"{name}={getattr(self, name)} with output={self.output}."
                )

    @property
    def of_objects(self) -> bool:
        """Whether COCO's results are written, not a table."""
        return pathlib.Path(self.output).suffix == RESULTS

    @property
    def fetched(self) -> tuple[str, ...]:
        """`outputs`, or () for all of them."""
        if self.of_objects:
            return ()
        if self.rows == "images":
            return self.outputs
        if self.outputs == self.settings()["outputs"].default:  # which objects lack
            return OF_OBJECTS if self.signature == "instances" else ()
        return self.outputs and tuple(dict.fromkeys([*self.outputs, "valid"]))

    @property
    def part(self) -> tuple[int, int] | None:
        """`shard` as numbers.

        Raises:
            SettingError: If it is none.
        """
        if self.shard is None:
            return None
        number, _, count = self.shard.partition("/")
        found = [int(n) if n.isdecimal() else -1 for n in (number, count)]
        if not 0 <= found[0] < found[1]:
            raise SettingError(
                "`shard` must be i/n, with i from 0 to n - 1. Received: "
                f"shard={self.shard}."
            )
        return found[0], found[1]


def listed_images(folder_or_list: str) -> Images:
    """The images below a folder, or those that a list names.

    Args:
        folder_or_list: Path.

    Raises:
        ValueError, FileNotFoundError: If there are none.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.png").write_bytes(b"")
        >>> listed_images(folder).names
        ['a.png']
    """
    path = without_scheme(os.fspath(folder_or_list))
    files = files_of(path)
    with remote_errors("A folder of images"):
        if files.exists(path) and not tf.io.gfile.isdir(path):
            cure = "Copy them to this machine, and list the copies."
            paths = read_list(path, cure=cure)
            return Images(os.path.dirname(path), tuple(paths), files=files)
        return Images(path, tuple(list_images("folder", path)), files=files)


def _writer(images, config):
    """None for a table."""
    if not config.of_objects:
        return None
    shown = (config.annotations, config.pictures, config.picture_score)
    return ResultWriter(images, *shown)


def run(
    extract: Callable[..., dict[str, str]], images: Images, config: ExtractionSettings
) -> None:
    """Extracts, and prints what came of it.

    Args:
        extract: Method of `FeatureClient` or `LocalModel`.
        images: What is sent.
        config: Where the features go, and how images are sent.

    Raises:
        SettingError: If the output is a folder.
        MissingExtra: If it needs a package that is not installed.
        CommandError: If the model refuses an image or answers wrongly, or no image can
            be used.

    Example:
        >>> config = ExtractionSettings(images="photos", output="features.npz")
        >>> def extract(images, output, **options):
        ...     return {"b.jpg": "a text file"}
        >>> run(extract, Images(pathlib.Path(), ("a.jpg", "b.jpg")), config)
        1 of 2 images in features.npz
    """
    output = without_scheme(config.output)
    files = files_of(output)
    if config.part is not None:
        images = images.shard(*config.part)
        output = shard_path(output, *config.part)
    if is_file(output) and files.is_local and pathlib.Path(output).is_dir():
        raise SettingError(
            f"`output` must be a file to write. Received: output={output}, a folder."
        )
    check_packages(output)
    try:
        failed = extract(
            images,
            output,
            batch_size=config.batch_size or (1 if config.signature == DETECT else 8),
            concurrency=config.concurrency,
            max_image_bytes=config.max_image_mb * 2**20,
            write=_writer(images, config),
            rows=config.rows,
            shard_images=config.shard_images,
            files=files,
        )
    except RequestError as error:
        raise CommandError(str(error)) from error
    *named, last = report(output, images, failed)
    for line in named:
        print(line, file=sys.stderr)
    print(last)
    check_answered(images, failed)


def check_answered(images: Images, failed: Mapping[str, str]) -> None:
    """Ends a command whose images were not all answered as they should be.

    An image that cannot be used is named, and is no error: it is its file's fault. A
    refusal or a wrong answer is one, and so is a folder without any image of use.

    Raises:
        CommandError: If there is one.

    Example:
        >>> check_answered(Images("", ("a.jpg",)), {"a.jpg": "refused: INTERNAL"})
        Traceback (most recent call last):
        slotcon_tf.runs.command.CommandError: All images must be answered. Received: 1 \
refused or answered wrongly, of 1. What is done is kept: give the same command again.
    """
    unanswered = Failed(failed).unanswered
    if unanswered:
        raise CommandError(
            f"All images must be answered. Received: {len(unanswered)} refused or "
            f"answered wrongly, of {len(images.paths)}. What is done is kept: give the "
            "same command again."
        )
    if images.paths and len(failed) == len(images.paths):
        raise CommandError(
            f"Images must be such as can be used. Received: none, of "
            f"{len(images.paths)}. The reasons are named above."
        )
