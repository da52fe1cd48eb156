"""Settings and steps that `export.client` and `export.extract` share."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable

from slotcon_tf.data.listing import list_images, read_list
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.settings import Config, SettingError, setting

from .detections import ENDING as RESULTS
from .detections import SIGNATURE as DETECT
from .detections import ResultWriter
from .extraction import Images, RequestError, report
from .tables import ENDINGS

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
        None, "File to write: .npz or .parquet; of signature=detect .json as well."
    )
    signature: str = setting(
        "image_bytes", "One that takes files; detect: a detector's."
    )
    outputs: tuple[str, ...] = setting(
        ("pooled",), "Outputs to keep; '': all. A .json has what it needs."
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
        if ending not in (*ENDINGS, RESULTS):
            raise SettingError(
                f"`output` must end in {' or '.join(ENDINGS)}, or in {RESULTS} with "
                f"signature={DETECT}. Received: output={self.output}."
            )
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
        return () if self.of_objects else self.outputs


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
    source = pathlib.Path(folder_or_list)
    if source.is_file():
        cure = "Copy them to this machine, and list the copies."
        return Images(source.parent, tuple(read_list(source, cure=cure)))
    return Images(source, tuple(list_images("folder", source)))


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
        CommandError: If the model refuses every batch.

    Example:
        >>> config = ExtractionSettings(images="photos", output="features.npz")
        >>> def extract(images, output, **options):
        ...     return {"b.jpg": "a text file"}
        >>> run(extract, Images(pathlib.Path(), ("a.jpg", "b.jpg")), config)
        1 of 2 images in features.npz
    """
    if pathlib.Path(config.output).is_dir():
        raise SettingError(
            f"`output` must be a file to write. Received: output={config.output}, a "
            "folder."
        )
    try:
        failed = extract(
            images,
            pathlib.Path(config.output),
            batch_size=config.batch_size or (1 if config.signature == DETECT else 8),
            concurrency=config.concurrency,
            max_image_bytes=config.max_image_mb * 2**20,
            write=_writer(images, config),
        )
    except RequestError as error:
        raise CommandError(str(error)) from error
    *named, last = report(config.output, images, failed)
    for line in named:
        print(line, file=sys.stderr)
    print(last)
