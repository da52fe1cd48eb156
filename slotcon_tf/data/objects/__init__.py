"""Images with objects: boxes, classes and masks, for detection."""

from slotcon_tf.data.objects.annotation import Annotation
from slotcon_tf.data.objects.object_images import (
    OBJECT_SETS,
    ObjectImages,
    has_objects,
    open_objects,
)

__all__ = ["OBJECT_SETS", "Annotation", "ObjectImages", "has_objects", "open_objects"]
