"""The extraction as an Apache Beam pipeline, and a model for RunInference."""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from slotcon_client.batches import Batches
from slotcon_client.errors import ExtractionError
from slotcon_client.extraction import Failed, Images
from slotcon_client.files import LOCAL
from slotcon_client.folder_output import FolderOutput
from slotcon_client.lock import held
from slotcon_client.parts import ENDING, Parts, check_made_by, remove_all
from slotcon_client.sending import served_form
from slotcon_tf.extras import needed
from slotcon_tf.runs.beam import run_pipeline

with needed("beam"):
    import apache_beam as beam
    from apache_beam.ml.inference.base import ModelHandler
    from apache_beam.utils.shared import Shared

MakeModel = Callable[[], Any]  # of a LocalModel or a FeatureClient


class FeatureHandler(ModelHandler):
    """A model for Beam's `RunInference`: bytes of files in, a dict of outputs out.

    Args:
        make_model: Function without arguments that a worker calls once, of a
            `LocalModel` or a `FeatureClient`.
        batch_size: Images per call, at most.
        settings: What the features must depend on, as the model's own `settings` tell
            them; a worker whose model is of another version ends in an ExtractionError.

    Example:
        >>> from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
        >>> class Sizes:
        ...     def predict(self, files):
        ...         return {"size": np.array([len(file) for file in files])}
        >>> infer = RunInference(KeyedModelHandler(FeatureHandler(Sizes)))
        >>> with beam.Pipeline() as pipeline:
        ...     files = pipeline | beam.Create([("a.jpg", b"123")])
        ...     sizes = files | infer | beam.MapTuple(lambda k, v: (k, int(v["size"])))
        ...     _ = sizes | beam.Map(print)
        ('a.jpg', 3)
    """

    def __init__(
        self,
        make_model: MakeModel,
        batch_size: int = 8,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(max_batch_size=batch_size)
        self._make_model, self._settings = make_model, settings

    def load_model(self) -> Any:
        model = self._make_model()
        if self._settings is not None:
            check_made_by(model, self._settings)
        return model

    def run_inference(
        self,
        batch: Sequence[bytes],
        model: Any,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[dict[str, np.ndarray]]:
        found = model.predict(list(batch))
        for row in range(len(batch)):
            yield {name: values[row] for name, values in found.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """What the workers of `extract_with_beam` need to know.

    Attributes:
        output: `FolderOutput`'s: path, settings, batch_size, files, per_object,
            shard_images.
        limit: Bytes of the largest image.
        concurrency: Calls at once, of each worker.

    Example:
        >>> ShardOptions(output={"path": "features"}, limit=1, concurrency=1).limit
        1
    """

    output: dict[str, Any]
    limit: int
    concurrency: int

    def folder(self, images: Images, model: Any = None, before: int = 0) -> Any:
        """The `FolderOutput` of some images."""
        outputs = ("valid",) if self.output["per_object"] else ()
        predict = _nobody if model is None else model.predict
        batches = Batches(predict, served_form, self.limit, images.files, outputs)
        return FolderOutput(
            **self.output, images=images, batches=batches, before=before
        )


def _nobody(files: Sequence[bytes]) -> dict[str, Any]:
    raise ExtractionError("Only the workers of a pipeline ask the model.")


class _Extract(beam.DoFn):
    """Number of a shard to what `write_shard` returns of it."""

    def __init__(
        self, make_model: MakeModel, options: ShardOptions, images: Images
    ) -> None:
        self._make_model, self._options = make_model, options
        self._images = images  # without their paths, which are many
        self._shared = Shared()

    def setup(self) -> None:
        self._model = self._shared.acquire(self._made).model

    def _made(self) -> Any:
        model = self._make_model()  # a server may have another version by now
        check_made_by(model, self._options.output["settings"])
        return _Held(model)

    def process(self, number: int) -> Iterator[dict[str, Any]]:
        files, path = self._options.output["files"], self._options.output["path"]
        paths = json.loads(files.read_all(_list_path(files, path, number)))
        first = number * self._options.output["shard_images"]
        images = dataclasses.replace(self._images, paths=tuple(paths), first=first)
        output = self._options.folder(images, self._model, number)
        # A shard is written whole or not at all: its batches need no other disk.
        with tempfile.TemporaryDirectory() as folder:
            parts = Parts(os.path.join(folder, "parts"), output.header, LOCAL)
            yield output.shard(parts, self._options.concurrency)


def _list_path(files, path, number):
    """Of the file that names a shard's images."""
    return files.join(path + ENDING, f"{number:05d}.json")


@dataclasses.dataclass
class _Held:
    """`Shared` keeps weak references, which not all models have."""

    model: Any


def extract_with_beam(
    pipeline_options: str,
    make_model: MakeModel,
    images: Images,
    output: str,
    *,
    settings: Mapping[str, Any],
    batch_size: int = 8,
    concurrency: int = 4,
    max_image_bytes: int = 20 * 2**20,
    rows: str = "images",
    shard_images: int = 4096,
    files: Any = LOCAL,
) -> Failed:
    """Writes a folder of .npy shards as `extract` does, each by one of Beam's workers.

    Shards that are there, of the same images and version, are not made again.

    Args:
        pipeline_options: Of Beam: `--runner=...` and what the runner needs; see
            `run_pipeline`.
        make_model: As of `FeatureHandler`; picklable.
        images, output, settings, ...: As of `slotcon_client.extraction.extract`; the
            output must be a folder that all workers reach.

    Returns:
        `Failed` of the images that failed.

    Raises:
        ExtractionError: If the folder is of other images, settings or another version,
            or another process writes it.
        CommandError: If the pipeline fails, as where a worker's model is not of
            `settings`.

    Example:
        >>> class Sizes:
        ...     def predict(self, files):
        ...         return {"size": np.array([len(file) for file in files])}
        >>> open("a.jpg", "wb").close()
        >>> images = Images("", ("a.jpg",))
        >>> extract_with_beam("", Sizes, images, "features", settings={})
        {}
        >>> np.load("features/00000.size.npy").tolist()
        [0]
    """
    path = output.rstrip("/")
    options = ShardOptions(
        output={
            "path": path,
            "settings": {**settings, "rows_per": rows.removesuffix("s")},
            "batch_size": batch_size,
            "files": files,
            "per_object": rows == "objects",
            "shard_images": shard_images,
        },
        limit=max_image_bytes,
        concurrency=concurrency,
    )
    whole = options.folder(images)
    options.output["shard_images"] = whole.shard_images  # by whole batches
    listed = (len(images.paths), images.about["images"])
    bare = dataclasses.replace(images, paths=(), listed=listed)

    def build(pipeline: Any) -> None:
        _ = (
            pipeline
            | "Shards" >> beam.Create(list(whole.numbers))
            | "Spread" >> beam.Reshuffle()
            | "Extract" >> beam.ParDo(_Extract(make_model, options, bare))
            | "All" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "Manifest" >> beam.Map(_finish, options.folder(bare), len(whole.numbers))
        )

    with held(path + ENDING, path) if files.is_local else contextlib.nullcontext():
        whole.begin()
        whole.manifest([], finished=False)  # shards may be made anew
        files.make(path + ENDING)
        for number in whole.numbers:
            start = number * whole.shard_images
            part = images.paths[start : start + whole.shard_images]
            listed_here = json.dumps([os.fspath(image) for image in part])
            files.write_text(_list_path(files, path, number), listed_here)
        run_pipeline(pipeline_options, build)
        remove_all(path + ENDING, files)
    failed = Failed(whole.failed_images())
    whole.list_failed(failed)
    return failed


def _finish(written: Sequence[dict[str, Any]], output: Any, count: int) -> None:
    written = sorted(written, key=lambda shard: shard["name"])
    if [int(shard["name"]) for shard in written] != list(range(count)):
        raise ExtractionError(
            f"All {count} shards must be there. Received: {len(written)}."
        )
    output.manifest(written, finished=True)
