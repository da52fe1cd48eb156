"""From the ids in label files to classes, by what the data set says of them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from slotcon_tf.data.class_names import class_difference
from slotcon_tf.data.labelled.decoding import MAX_CLASSES, VOID, LabelError

_STEPS = 8  # greys 255 / 8 apart and more are drawn to be seen, not counted
_LEVELS = 200  # more are no classes without names; COCO-Stuff has 182
# See `_blurred`: at most so many levels, each of such a share of all pixels, together
# of such a share, so far apart, and more than so many others, or such a share of all
# levels between them.
_MAJORS, _MAJOR_SHARE, _MAJORS_SHARE, _APART, _MINORS = 4, 0.05, 0.6, 64, 8
_DENSE = 0.6
_WIDE_VOID = (2**16 - 1, 2**31 - 1)  # what 255 is where ids have 16 or 32 bits
_PER_CLASS = 1000  # instances, in Cityscapes' maps of them and others'
_BESIDE = 8  # levels that noise moves a grey by


class ClassTable:
    """From the ids in label files to classes 0 .. C - 1, and their names.

    Args:
        ids: Dict of id to name, in the order of the classes. 255 is void by itself.
        void: Other ids that count nowhere.
        merged: Dict of id to class, if several ids are one class; `ids` then holds a
            key per class that is only a number.

    Attributes:
        names: Tuple of C names.

    Raises:
        LabelError: If there is no class, or more than a byte holds.

    Example:
        >>> table = ClassTable({0: "sky", 7: "road"}, void=(3,))
        >>> table.classes(np.array([[0, 3, 7]]), "a.png").tolist()
        [[0, 255, 1]]
    """

    def __init__(
        self,
        ids: dict[int, str],
        void: Iterable[int] = (),
        merged: dict[int, int] | None = None,
    ) -> None:
        self.names = tuple(ids.values())
        if not 0 < len(self.names) < MAX_CLASSES:
            raise LabelError(
                f"There must be between 1 and {MAX_CLASSES - 1} classes. "
                f"Received: {len(self.names)}."
            )
        classes = merged or {number: index for index, number in enumerate(ids)}
        # An id 255 that somebody has named is a class.
        known = {**dict.fromkeys((*void, VOID), VOID), **classes}
        self._known = np.array(sorted(known), np.int64)
        self._class = np.array([known[i] for i in self._known.tolist()], np.uint8)

    @property
    def ids(self) -> dict[int, int]:
        """Class, or `VOID`, of each id that is known."""
        return dict(zip(self._known.tolist(), self._class.tolist(), strict=True))

    def classes(self, ids: np.ndarray, path: object) -> np.ndarray:
        """Classes of ids.

        Args:
            ids: Integers (height, width).
            path: Named in the error.

        Returns:
            uint8 (height, width), `VOID` where void.

        Raises:
            LabelError: If an id is neither a class nor void.
        """
        place = np.searchsorted(self._known, ids).clip(max=len(self._known) - 1)
        strange = self._known[place] != ids
        if strange.any():
            found = np.unique(ids[strange])
            smooth = f" {_SMOOTH}" if len(found) > 3 else ""
            raise LabelError(
                f"Ids of {path} must be those of the {len(self.names)} classes or "
                f"void. Received: {', '.join(map(str, found[:5].tolist()))} in "
                f"{strange.mean():.1%} of its pixels. Name them in `class_file`, as "
                f"'{found[0]} void' if they count nowhere, or list the ids of the "
                f"classes in `label_ids` and of void in `void_ids`.{smooth}"
            )
        return self._class[place]


_SMOOTH = (
    "Many grey levels where few classes are meant are smooth edges: write the label "
    "maps without antialiasing, resize them by nearest neighbour, never as JPEG."
)


def table_of_found(
    pixels: dict[int, int], void_ids: Sequence[int] | None, name: str
) -> ClassTable:
    """A class of every id that the label maps hold, where nothing names classes.

    255 is void by itself, unless it is one of a few greys spread over the whole range:
    masks of 0 and 255, of 0, 128 and 255. Those it may be a class of, so somebody has
    to say it.

    Args:
        pixels: Dict of id to its number of pixels in all maps.
        void_ids: Ids that count nowhere beside 255. An empty list says of greys that
            are spread that 255 is a class; None says nothing.
        name: Of the set, for errors.

    Returns:
        A `ClassTable`.

    Raises:
        LabelError: If it is open what 255 is, or an id that is void or an instance at
            most other places, or grey levels are not classes.


    Example:
        >>> table_of_found({0: 900, 1: 50, 255: 50}, None, "photos").names
        ('0', '1')
    """
    found = sorted(pixels)
    shown = ", ".join(map(str, found[:8])) + (" ..." if len(found) > 8 else "")
    # 255 is void by itself, but shades of it are not.
    named = set(void_ids or ()) - {VOID}
    if _blurred({i: n for i, n in pixels.items() if i not in named}):
        raise LabelError(
            f"Label maps must hold an id per class. Received: {name}, {len(found)} "
            f"grey levels ({shown}), which look like shades. {_SMOOTH} If they are "
            "classes, name them in `class_file`."
        )
    void = {VOID, *(void_ids or ())}
    rest = [i for i in found if i not in (void_ids or ())]
    if _spread(rest):
        if void_ids is None or len(void_ids):
            listed = ",".join(map(str, rest))
            nowhere = ",".join(map(str, (*(void_ids or ()), VOID)))
            raise LabelError(
                f"It must be said what 255 is in {name}. Received: label maps of "
                f"{listed.replace(',', ', ')} only, and no file of classes. If 255 is "
                f"a class, set label_ids={listed} (or void_ids=none, or name "
                f"the ids in `class_file`); if it is void, void_ids={nowhere}."
            )
        void = set()
    odd = _odd([i for i in found if i not in void])
    if odd and void_ids is None:
        raise LabelError(
            f"It must be said which ids of {name} are classes. Received: {odd}, and no "
            "file of classes. List those that count nowhere in `void_ids` (none if all "
            "are classes), list the classes in `label_ids`, or name them in "
            "`class_file`."
        )
    classes = {i: str(i) for i in found if i not in void}
    if len(classes) < 2:
        only = f"only id {next(iter(classes))}" if classes else "none"
        hidden = [str(i) for i in found if i in void]
        beside = f" beside void ({', '.join(hidden)})" if hidden else ""
        ids = f"label_ids={','.join(map(str, found))}"
        cure = f"If void is a class, set {ids}. " if hidden and classes else ""
        raise LabelError(
            f"Label maps must hold two classes at least. Received: {name}, {only}"
            f"{beside}. {cure}If other images have the other classes, take more, or "
            "name all classes in `class_file`."
        )
    if len(classes) >= MAX_CLASSES:
        raise LabelError(
            f"Label maps must hold {MAX_CLASSES - 1} ids at most. Received: {name}, "
            f"{len(classes)} ({shown}). Are they segments or instances, not classes? "
            f"{_SMOOTH}"
        )
    return ClassTable(classes, void=void)


def table_of_values(
    values: Sequence[int], void_ids: Sequence[int] | None, table: ClassTable | None
) -> ClassTable:
    """A class of each value that somebody lists, in that order.

    Args:
        values: Ids in the label files; value i is class i.
        void_ids: Ids that count nowhere, beside 255 where that is no value.
        table: `ClassTable` whose names the classes have, or None: the values.

    Returns:
        A `ClassTable`.

    Raises:
        LabelError: If values cannot be classes, or names do not fit them.

    Example:
        >>> table_of_values([0, 255], None, None).names
        ('0', '255')
    """
    both = set(values) & set(void_ids or ())
    if len(values) < 2 or len(set(values)) < len(values) or both:
        raise LabelError(
            "`label_ids` must be two different ids or more, none of them void. "
            f"Received: label_ids={','.join(map(str, values))}"
            f"{f' and void {sorted(both)}' if both else ''}."
        )
    names = table.names if table else tuple(map(str, values))
    if len(names) != len(values):
        raise LabelError(
            "`label_ids` must list an id per class. Received: "
            f"{len(values)} ids for {len(names)} classes ({', '.join(names[:5])} ...). "
            "Leave out ids that are void, or change the file of classes."
        )
    return ClassTable(dict(zip(values, names, strict=True)), void=void_ids or ())


_checked: weakref.WeakSet[Any] = weakref.WeakSet()  # of `check_two_classes`


def check_two_classes(images: Any) -> None:
    """Raises `LabelError` unless a labelled set has pixels of two classes at least.

    It looks until it has seen the second, once. With one class any network is perfect.

    Args:
        images: A `SegmentedImages`.

    Example:
        >>> class Blank:
        ...     num_images = 1
        ...     def load(self, index):
        ...         return np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
        >>> check_two_classes(Blank())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        slotcon_tf.data.labelled.decoding.LabelError: Labelled pixels must ...
    """
    if images in _checked:
        return
    seen, void = set(), False
    for index in range(images.num_images):
        found = set(np.unique(images.load(index)[1]).tolist())
        void = void or VOID in found
        seen |= found - {VOID}
        if len(seen) > 1:
            _checked.add(images)
            return
    names = getattr(images, "class_names", range(VOID))
    only = f"only {names[seen.pop()]!r}" if seen else "none"
    raise LabelError(
        "Labelled pixels must be of two classes at least, or any network is perfect. "
        f"Received: {images!r}, with {only}{' and void' if void else ''}. "
        "Take more images, or, if void is a class, list the ids of the classes "
        "(label_ids=0,255 for masks of 0 and 255)."
    )


def check_two_labels(labels: Iterable[Any], name: object) -> None:
    """Raises `LabelError` unless there are two classes at least among labels.

    Args:
        labels: Iterable of class numbers, of images or of pixels that count; it is
            followed until the second is seen.
        name: Of their set, for the error.

    Example:
        >>> check_two_labels([3, 3, 4], "photos")
    """
    seen = set()
    for label in labels:
        seen.add(int(label))
        if len(seen) > 1:
            return
    raise LabelError(
        "Labels must be of two classes at least, or any network is perfect. "
        f"Received: {name}, with one class only. Take images of others, too."
    )


def check_same_classes(train: Any, data: Any) -> None:
    """Raises `LabelError` unless two labelled sets have the same classes in order.

    Args:
        train, data: `SegmentedImages`, `ClassifiedImages` or `ObjectImages`.

    Example:
        >>> from slotcon_tf.data.labelled import ClassifiedImages
        >>> one = ClassifiedImages("one", iter, 2, ("cat", "dog"))
        >>> check_same_classes(one, ClassifiedImages("two", iter, 9, ("cat", "dog")))
    """
    both = ("the former", "the latter")
    odd = class_difference(train.class_names, data.class_names, both)
    if odd:
        raise LabelError(
            "Both splits must have the same classes, in the same order. Received: "
            f"{train!r} and {data!r}, with {odd}. For folders and lists give "
            "`class_file`."
        )


def _odd(found):
    """Ids that are void or instances at most other places, as text; mostly none."""
    odd = [i for i in found if i < 0 or i in _WIDE_VOID]
    if odd:
        return ", ".join(map(str, odd))
    instances = [i for i in found if i >= _PER_CLASS]
    if len({i // _PER_CLASS for i in instances}) < len(instances):
        shown = ", ".join(map(str, instances[:5]))
        return f"{shown}, which look like instances (class x {_PER_CLASS} + number)"
    return ""


def _spread(found, top=255):
    """Whether ids are greys such as 0, 255 or 0, 85, 170, 255 (a level off or so)."""
    if found[-1:] != [top] or len(found) < 2 or found[0] < 0:
        return False
    for parts in range(len(found) - 1, _STEPS + 1):
        nearest = [round(i * parts / top) for i in found]
        near = all(
            abs(i - top * n / parts) < 1.5 for i, n in zip(found, nearest, strict=True)
        )
        if near and len(set(nearest)) == len(found):
            return True
    return False


def _drawn(pixels, levels):
    """Those of some levels that others beside them have fewer pixels than, in order."""
    kept = []
    for level in sorted(levels, key=pixels.get, reverse=True):
        if all(abs(level - other) > _BESIDE for other in kept):
            kept.append(level)
    return sorted(kept)


def _blurred(pixels):
    """Whether ids are mixtures of a few classes, as antialiasing or JPEG leaves them.

    Most of the 256 levels are in use; or a few levels, far apart, hold most pixels,
    and many others between them little: nearly all levels, or, where those few are
    evenly spread as drawn greys are, some in every quarter between them.
    """
    if len(pixels) > _LEVELS or _noisy(pixels):
        return True
    total = sum(pixels.values())
    major = _drawn(pixels, [i for i, n in pixels.items() if n > _MAJOR_SHARE * total])
    share = sum(pixels[i] for i in major) / total
    if not 2 <= len(major) <= _MAJORS or share < _MAJORS_SHARE:
        return False
    low, high = major[0], major[-1]
    minor = [i for i in pixels if i not in major]
    inside = [i for i in minor if low < i < high]
    outside = sum(not low - _BESIDE <= i <= high + _BESIDE for i in minor)
    if high - low < _APART or len(inside) <= _MINORS or 10 * outside > len(minor):
        return False
    quarters = {4 * (i - low) // (high - low) for i in inside}
    even = _spread(major, high) and (len(major) > 2 or high == 255)
    return even and len(quarters) == 4 or len(inside) > _DENSE * (high - low)


def _noisy(pixels):
    """Whether ids are those of drawn greys up to 255, and of levels beside them only.

    Beside 0 alone they are classes: 0, 1, 2, and 255 for void.
    """
    total = sum(pixels.values())
    major = [i for i, n in pixels.items() if n > _MAJOR_SHARE * total or i in (0, 255)]
    drawn = _drawn(pixels, major)
    if not _spread(drawn) or sum(pixels[i] for i in drawn) < _MAJORS_SHARE * total:
        return False
    nearest = {i: min(drawn, key=lambda d: abs(d - i)) for i in pixels}
    far = any(abs(i - near) > _BESIDE for i, near in nearest.items())
    return not far and any(near for i, near in nearest.items() if i != near)
