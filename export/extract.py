"""Features of a folder of images straight from a SavedModel, without a server.

    python -m export.extract --export_dir=served/slotcon --images=photos \\
        --output=out.npz

The same as `export.client` in all but where the model runs.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from slotcon_client.answers import Served, check_answer
from slotcon_client.extraction import is_file
from slotcon_tf.runs.beam import HELP
from slotcon_tf.runs.command import Command
from slotcon_tf.runs.settings import SettingError, check_left_out, setting

from .extraction import ExtractionError, Images, RequestError, extract
from .extraction_settings import ExtractionSettings, listed_images, run
from .loading import identity_of, load_version, version_folder
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
    beam: str | None = setting(None, HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam is None:
            return
        if is_file(self.output) or self.of_objects:
            raise SettingError(
                "`output` must be a folder where `beam` is set, for a shard of each "
                f"worker. Received: output={self.output}. slotcon-merge makes a file "
                "of it."
            )
        check_left_out(self, ("shard",), "where `beam` is set")


class LocalModel:
    """A SavedModel in this process, with those of `FeatureClient`'s methods that ask.

    Its answers are believed as a server's are.

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
        self.path = version_folder(path)
        self.signature = signature
        self.outputs = tuple(outputs)
        signatures = load_version(self.path)
        if signature not in signatures:
            raise ExtractionError(
                f"`signature` must be one of {sorted(signatures)}. "
                f"Received: {signature!r}."
            )
        # The pair keeps alive what the function belongs to.
        self._function, self._loaded = signatures[signature]
        known = self._function.structured_outputs
        unknown = sorted(set(self.outputs) - set(known))
        if unknown or not {"ok", "reason"} <= set(known):
            raise ExtractionError(
                f"`outputs` must be of those of {signature}: {sorted(known)}. "
                f"Received: {unknown}. "
                "Take a signature of files, such as image_bytes."
            )

        version = int(self.path.name) if self.path.name.isdigit() else 0
        self._names = list(known)
        if self.outputs:
            self._names = list(dict.fromkeys([*self.outputs, "ok", "reason"]))
        forms = {name: _form(spec) for name, spec in known.items()}
        self._served = Served(self.path.parent.name, version, forms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing: there is no connection."""

    @property
    def served(self) -> Served:
        """The version that all answers are of; 0 if the folder's name is no number."""
        return self._served

    def check(self) -> None:
        """Nothing: what there is, was found out at the beginning."""

    def predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Features of files; see `FeatureClient.predict`."""
        return ask(self._predict, content)

    def _predict(self, content: Sequence[bytes]) -> dict[str, np.ndarray]:
        try:
            found = self._function(image_bytes=tf.constant(content, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(str(error).splitlines()[0][:300]) from error
        found = {name: _numbers(found[name]) for name in self._names}
        return check_answer(found, self._served, self._names, content)

    def extract(
        self, images: Images, output: str | os.PathLike, **options: Any
    ) -> dict[str, str]:
        """`export.extraction.extract` with this model; see there."""
        settings = self.settings()
        return extract(self.predict, images, output, settings=settings, **options)

    def settings(self) -> dict[str, Any]:
        """What features depend on: which version, wherever it lies, and what of it."""
        return settings_of(self.path, self.signature, self.outputs)


def _form(spec):
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return spec.dtype.name, shape


def _numbers(tensor):
    """As the wire has them: bfloat16, which NumPy lacks, is float32."""
    tensor = tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor
    return tensor.numpy()


def settings_of(
    path: str | os.PathLike, signature: str, outputs: Sequence[str]
) -> dict[str, Any]:
    """What features of a version depend on; see `LocalModel`.

    Raises:
        FileNotFoundError: If there is no SavedModel.

    Example:
        >>> settings_of("nowhere", "image_bytes", ())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: No SavedModel in nowhere. ...
    """
    asked = {"signature": signature, "outputs": list(outputs)}
    return {**identity_of(version_folder(path)), **asked}


def _with_beam(config):
    """`extract` of a configuration, in the workers of Beam."""
    from .beam import extract_with_beam  # of an extra

    path = version_folder(config.export_dir)  # the same in all workers
    asked = {"signature": config.signature, "outputs": config.fetched}
    make_model = functools.partial(LocalModel, path, **asked)

    def extract_all(images, output, *, write, **options):
        del write  # of objects' results, which are one file
        settings = settings_of(path, **asked)
        given = (config.beam, make_model, images, str(output))
        return extract_with_beam(*given, settings=settings, **options)

    return extract_all


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
    if config.beam is not None:
        run(_with_beam(config), images, config)
        return

    def extract_all(*args: Any, **options: Any) -> dict[str, str]:
        model = LocalModel(  # which takes seconds: what is quick to refuse came first
            config.export_dir, signature=config.signature, outputs=config.fetched
        )
        return model.extract(*args, **options)

    run(extract_all, images, config)


main = Command("extract", ExtractConfig, extract_features, __doc__)

if __name__ == "__main__":
    main()
