"""Features of a folder of images straight from a SavedModel, without a server.

    python -m export.extract --export_dir=served/slotcon --images=photos \\
        --output=out.npz

The same as `export.client` in all but where the model runs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import setting

from .extraction import ExtractionError, Images, RequestError, extract
from .extraction_settings import ExtractionSettings, listed_images, run
from .loading import load_version
from .sending import ask


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractConfig(ExtractionSettings):
    """What is extracted, and from which export.

    Example:
        >>> config = ExtractConfig(
        ...     export_dir="served/slotcon", images="photos", output="features.npz"
        ... )
        >>> config.concurrency
        4
    """

    export_dir: str = setting(
        None,
        "Folder of all versions, or of one, that slotcon-export wrote.",
        aliases=("model",),
    )


class LocalModel:
    """A SavedModel in this process, with `FeatureClient`'s methods.

    Args:
        path: Folder of a version, or of all versions: the newest is taken.
        signature: One that takes `image_bytes`.
        outputs: Names of the outputs to keep, () for all.

    Raises:
        FileNotFoundError: If there is no SavedModel.
        ExtractionError: If it has no such signature or outputs.

    Example:
        >>> LocalModel("served/slotcon")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No SavedModel in served/slotcon. ...
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        signature: str = "image_bytes",
        outputs: Sequence[str] = ("pooled",),
    ) -> None:
        self.path = path
        self.signature = signature
        self.outputs = tuple(outputs)
        signatures = load_version(path)
        if signature not in signatures:
            raise ExtractionError(
                f"`signature` must be one of {sorted(signatures)}. "
                f"Received: {signature!r}."
            )
        # The pair keeps alive what the function belongs to.
        self._function, self._loaded = signatures[signature]
        known = self._function.structured_outputs
        unknown = sorted(set(self.outputs) - set(known))
        if unknown or "ok" not in known:
            raise ExtractionError(
                f"`outputs` must be of those of {signature}: {sorted(known)}. "
                f"Received: {unknown}. "
                "Take a signature of files, such as image_bytes."
            )

    def predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Features of files; see `FeatureClient.predict`."""
        found = ask(self._predict, content)
        names = {*(self.outputs or found), "ok", "reason"}
        return {name: np.asarray(found[name]) for name in names}

    def _predict(self, content: Sequence[bytes]) -> dict[str, tf.Tensor]:
        try:
            return self._function(image_bytes=tf.constant(content, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(str(error).splitlines()[0][:300]) from error

    def extract(
        self, images: Images, output: str | os.PathLike, **options: Any
    ) -> dict[str, str]:
        """`export.extraction.extract` with this model; see there."""
        settings = {
            "model": str(self.path),
            "signature": self.signature,
            "outputs": list(self.outputs),
        }
        return extract(self.predict, images, output, settings=settings, **options)


def extract_features(config: ExtractConfig) -> None:
    """Extracts the features of images, and prints what came of it.

    Args:
        config: What is extracted, from which export, and where it goes.

    Raises:
        ValueError, OSError: If there is no such export, signature or output, or there
            are no images.

    Example:
        >>> config = ExtractConfig(export_dir="a", images="none", output="a.npz")
        >>> extract_features(config)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: Dataset 'folder' needs the folder none. ...
    """
    images = listed_images(config.images)

    def extract_all(*args: Any, **options: Any) -> dict[str, str]:
        model = LocalModel(  # which takes seconds: what is quick to refuse came first
            config.export_dir, signature=config.signature, outputs=config.fetched
        )
        return model.extract(*args, **options)

    run(extract_all, images, config)


main = Command("extract", ExtractConfig, extract_features, __doc__)

if __name__ == "__main__":
    main()
