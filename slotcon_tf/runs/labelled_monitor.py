"""Scores and pictures on a small labelled set while a model is trained."""

import functools

import numpy as np

from slotcon_tf.data.labelled import (
    check_two_classes,
    open_classified,
    open_segmented,
)
from slotcon_tf.evaluation import classification, grouping_metrics
from slotcon_tf.evaluation.groups import group_confusions
from slotcon_tf.evaluation.inference import Inference, same_size_batches
from slotcon_tf.runs.label_settings import with_prefix
from slotcon_tf.visualize.figures import figure_pixels, slots_figure

TASKS = ("groups", "knn")
PICTURES = 6


class LabelledMonitor:
    """What `trainers.pretrain --eval_every_epochs` measures: the teacher.

    Args:
        model: A `SlotCon`; its present weights are measured at every call.
        task: "groups": slots against label maps; "knn": classes of images by their
            nearest images of the train split.
        dataset, data_dir: As in trainers.evaluate.
        split: Its evenly spaced `num_images` images are measured.
        train_split: Of knn; ten times as many images are taken.
        num_images: Number of images.
        crop_size: Edge of the central squares that are measured; 0 for whole images.
        labels: Dict of class_file, void_ids and label_ids; see `open_segmented`.

    Raises:
        ValueError, OSError: If the labelled set cannot be used.
    """

    def __init__(
        self,
        model,
        task,
        dataset,
        data_dir,
        split,
        train_split,
        *,
        num_images,
        crop_size,
        labels=None,
    ):
        self.task = task
        self._inference = Inference(model)
        self._matching = {}  # of the newest scores
        sizes = {"max_images": num_images, "crop_size": crop_size}
        try:
            if task == "groups":
                self._open_segmented(dataset, data_dir, split, sizes, labels or {})
            else:
                self._open_classified(dataset, data_dir, split, train_split, sizes)
        except (ValueError, FileNotFoundError) as error:
            raise with_prefix(error, "eval_") from None

    def _open_segmented(self, dataset, data_dir, split, sizes, labels):
        self.data = open_segmented(dataset, data_dir, split, **sizes, **labels)
        check_two_classes(self.data)
        self._look_through(self.data)

    def _open_classified(self, dataset, data_dir, split, train_split, sizes):
        opened = functools.partial(open_classified, dataset, data_dir)
        if sizes["crop_size"] is None:
            sizes = {"max_images": sizes["max_images"]}
        self.data = opened(split, **sizes)
        more = {"max_images": 10 * sizes["max_images"]}
        self.train = opened(train_split, **{**sizes, **more})
        for data in (self.train, self.data):
            self._look_through(data)

    @staticmethod
    def _look_through(data):
        """What is wrong with any image shows before training, not in its middle."""
        for _ in data:
            pass

    def __call__(self):
        """Scores by name: miou, pixel_accuracy, nmi, ari ...; or knn_accuracy."""
        if self.task == "knn":
            known = classification.features(self._inference, self.train)
            found = classification.features(self._inference, self.data)
            classifier = classification.nearest_neighbours(*known)
            counts = classification.accuracy_counts(classifier, *found).sum(axis=0)
            return {"knn_accuracy": classification.accuracy(counts)["accuracy"]}
        counts = group_confusions(self._inference, self.data, self.data.num_classes)
        counts = np.asarray(counts.sum(axis=0))
        metrics = grouping_metrics(counts.reshape(self.data.num_classes, -1))
        self._matching = metrics["matching"]
        return {k: v for k, v in metrics.items() if isinstance(v, float)}

    def picture(self):
        """Images, true masks and slots of the first images of one size.

        Groups have the colours of the classes that the newest scores matched them to.

        Returns:
            uint8 (height, width, 3).
        """
        pairs = [self.data.load(i) for i in range(min(PICTURES, len(self.data)))]
        images, masks = next(same_size_batches(pairs, PICTURES))
        return figure_pixels(
            slots_figure(
                images,
                self._inference.groups(images),
                masks,
                class_names=self.data.class_names,
                matching=self._matching,
            )
        )
