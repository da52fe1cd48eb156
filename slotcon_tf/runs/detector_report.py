"""What a report shows of a detector: images, what is true of them, what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from slotcon_tf.data.objects import Annotation, ObjectImages, open_objects
from slotcon_tf.data.source import Sample
from slotcon_tf.detection import Detector, MaskRCNN
from slotcon_tf.detection.pictures import certain, draw_found, draw_true
from slotcon_tf.runs.measured_detector import check_detector_classes
from slotcon_tf.visualize.detection_section import Detected


class ObjectSource:
    """Images with objects, as reports take images; each comes with its `Annotation`.

    Args:
        images: `ObjectImages`.

    Example:
        >>> import types
        >>> images = types.SimpleNamespace(name="photos", num_images=3)
        >>> ObjectSource(images).name
        'photos'
    """

    def __init__(self, images: ObjectImages) -> None:
        self.name = images.name
        self.num_images = images.num_images
        self._images = images

    @classmethod
    def of_detector(
        cls, model: MaskRCNN, dataset: str, data_dir: str | None, split: str = "val"
    ) -> ObjectSource:
        """A split of a set that has the detector's classes."""
        own = {"masks": model.masks, "pixel_range": model.statistics.pixel_range}
        images = open_objects(dataset, data_dir, split, **own)
        check_detector_classes(model.class_names, images)
        return cls(images)

    def sample(self, n: int) -> Iterator[Sample]:
        """At most `n` images, evenly spaced."""
        for place, (image, annotation) in enumerate(self._images.sample(n)):
            yield Sample(place, annotation.file_name, image, annotation)


class DetectionDrawer:
    """Draws what a detector finds in an image beside what is true of it.

    Args:
        model: `MaskRCNN`.
        edge: Longer edge of the pictures, pixels.

    Call arguments:
        sample: `Sample`, whose labels are an `Annotation` where that is known.

    Returns:
        `Detected`.

    Example:
        >>> import numpy as np
        >>> from slotcon_tf import backbone
        >>> sizes = {"channels": 8, "units": 16, "short_edge": 64}
        >>> model = MaskRCNN(backbone("resnet10", width=8), class_names="ab", **sizes)
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> DetectionDrawer(model, 320)(Sample(0, "a.jpg", image)).found.shape
        (240, 320, 3)
    """

    def __init__(self, model: MaskRCNN, edge: int) -> None:
        self._detector, self._edge = Detector(model), edge

    def __call__(self, sample: Sample) -> Detected:
        names, own = self._detector.class_names, {"edge": self._edge}
        found = certain(self._detector(sample.image))
        told = [
            f"{names[number]} {score:.2f}"
            for number, score in zip(found.classes, found.scores, strict=True)
        ]
        picture = draw_found(sample.image, found, names, **own)
        truth, told_truth = None, ""
        if isinstance(sample.labels, Annotation):
            truth = draw_true(sample.image, sample.labels, names, **own)
            counts = Counter(names[number] for number in sample.labels.classes)
            told_truth = ", ".join(
                f"{count} {name}" if count > 1 else name
                for name, count in counts.items()
            )
        return Detected(sample.name, picture, ", ".join(told), truth, told_truth)
