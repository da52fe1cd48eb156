"""Scores and pictures on a small labelled set while a model is trained."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from slotcon_tf.data.labelled import open_classified, open_segmented
from slotcon_tf.evaluation.bootstrap import summed
from slotcon_tf.evaluation.classification import nearest_neighbours
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.evaluation.tasks import classification_task, groups_task
from slotcon_tf.images import statistics_of
from slotcon_tf.method.slotcon import SlotCon
from slotcon_tf.runs.label_settings import with_prefix
from slotcon_tf.visualize.figures import figure_pixels, slots_figure

TASKS = ("groups", "knn")
PICTURES = 6


class LabelledMonitor:
    """What `trainers.pretrain --eval_every_epochs` measures: the teacher.

    Args:
        model: A `SlotCon`; its present weights are measured at every call.
        task: "groups": groups against label maps; "knn": classes of images by their
            nearest images of the train split.
        dataset, data_dir: As in trainers.evaluate.
        split: Its evenly spaced `num_images` images are measured.
        train_split: Of knn; ten times as many images are taken.
        num_images: Number of images; None for all.
        crop_size: Edge of the central squares that are measured; 0 for whole images.
        labels: Dict of class_file, void_ids and label_ids; see `open_segmented`.
        scale: Factor by which images are resized first.
        prefix: Of the settings' names in errors.

    Raises:
        ValueError, OSError: If the labelled set cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from slotcon_tf import backbone
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "val").mkdir(), (folder / "valannot").mkdir()
        (None, None)
        >>> Image.new("RGB", (64, 64)).save(folder / "val" / "a.png")
        >>> masks = Image.fromarray(np.eye(64, dtype=np.uint8))
        >>> masks.save(folder / "valannot" / "a.png")
        >>> sizes = {"num_prototypes": 3, "hidden_dim": 8, "projection_dim": 4}
        >>> model = SlotCon(backbone("resnet10", width=8), total_steps=1, **sizes)
        >>> data = "folders", str(folder), "val", None
        >>> options = {"num_images": None, "crop_size": 0}
        >>> monitor = LabelledMonitor(model, "groups", *data, **options)
        >>> sorted(monitor())[:2]
        ['ari', 'majority_accuracy']
    """

    def __init__(
        self,
        model: SlotCon,
        task: str,
        dataset: str,
        data_dir: str | None,
        split: str,
        train_split: str | None,
        *,
        num_images: int | None,
        crop_size: int | None,
        labels: dict[str, Any] | None = None,
        scale: float = 1.0,
        prefix: str = "eval_",
    ) -> None:
        self._inference = Inference(model, scale=scale)
        self._total = None  # of the newest measurement
        sizes: dict[str, Any] = {"max_images": num_images, "crop_size": crop_size}
        sizes["pixel_range"] = statistics_of(model).pixel_range
        try:
            if task == "groups":
                self._open_segmented(dataset, data_dir, split, sizes, labels or {})
            else:
                self._open_classified(dataset, data_dir, split, train_split, sizes)
        except (ValueError, FileNotFoundError) as error:
            raise with_prefix(error, prefix) from None

    def _open_segmented(self, dataset, data_dir, split, sizes, labels):
        self.data = open_segmented(dataset, data_dir, split, **sizes, **labels)
        self.task = groups_task(self.data, self._inference.num_prototypes)
        self._name = "{}"
        self._look_through(self.data)

    def _open_classified(self, dataset, data_dir, split, train_split, sizes):
        opened = functools.partial(open_classified, dataset, data_dir)
        if sizes["crop_size"] is None:
            sizes = {k: v for k, v in sizes.items() if k != "crop_size"}
        self.data = opened(split, **sizes)
        most = sizes["max_images"]
        more = {"max_images": most and 10 * most}
        train = opened(train_split, **{**sizes, **more})
        self.task = classification_task(nearest_neighbours, train, self.data)
        self._name = "knn_{}"
        for data in (train, self.data):
            self._look_through(data)

    @staticmethod
    def _look_through(data):
        """What is wrong with any image shows before training, not in its middle."""
        for _ in data:
            pass

    def __call__(self) -> dict[str, float]:
        """Scores by name: miou, pixel_accuracy, nmi, ari ...; or knn_accuracy."""
        found = self.task.score(summed(self.measure()))
        return {self._name.format(name): value for name, value in found.items()}

    def measure(self) -> Any:
        """What the task measures of every image, (N, M), of the present weights."""
        counts = self.task.measure(self._inference)
        self._total = summed(counts)
        return counts

    def figure(self) -> Figure:
        """Images, true masks and groups of the first images of one size.

        Groups have the colours of the classes that the newest scores matched them to.

        Returns:
            A matplotlib Figure.
        """
        pairs = [(s.image, s.labels) for s in self.data.sample(PICTURES)]
        images, masks = next(same_size_batches(pairs, PICTURES))
        matched = {} if self._total is None else self.task.matching(self._total)  # pyright: ignore[reportOptionalCall]
        return slots_figure(
            images,
            self._inference.groups(images),
            masks,
            class_names=self.data.class_names,
            matching=matched,
        )

    def picture(self) -> np.ndarray:
        """`figure` as uint8 (height, width, 3)."""
        return figure_pixels(self.figure())
