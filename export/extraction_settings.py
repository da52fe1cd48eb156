"""Settings and steps that `export.client` and `export.extract` share."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable

from slotcon_tf.data.listing import list_images, read_list
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.settings import Config, SettingError, setting

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
    output: str = setting(None, "File to write: .npz or .parquet.")
    signature: str = setting("image_bytes", "One that takes files.")
    outputs: tuple[str, ...] = setting(("pooled",), "Outputs to keep.")
    batch_size: int = setting(8, "Images at once: of a request.", low=1)
    concurrency: int = setting(4, "Requests at once.", low=1)
    max_image_mb: int = setting(20, "Larger files are not sent.", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if pathlib.Path(self.output).suffix not in ENDINGS:
            raise SettingError(
                f"`output` must end in {' or '.join(ENDINGS)}. "
                f"Received: output={self.output}."
            )


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
            batch_size=config.batch_size,
            concurrency=config.concurrency,
            max_image_bytes=config.max_image_mb * 2**20,
        )
    except RequestError as error:
        raise CommandError(str(error)) from error
    *named, last = report(config.output, images, failed)
    for line in named:
        print(line, file=sys.stderr)
    print(last)
