"""Draws one procedural scene: textured objects over textured backgrounds.

Frames: pixels, x to the right, y down, the origin at the top left corner. Colours are
RGB in [0, 1] until the last step. A scene is a pure function of its generator.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

BACKGROUNDS = ("sky", "grass", "water", "sand")
THINGS = (
    "tree",
    "house",
    "car",
    "boat",
    "cloud",
    "balloon",
    "flowers",
    "rock",
    "person",
    "cow",
)
CATEGORIES = BACKGROUNDS + THINGS
_LAND = ("grass", "sand")
# What a kind may stand on; kinds that are not named here stand on land.
_STANDS_ON = {"boat": ("water",), "rock": ("water", *_LAND)}
_IN_THE_AIR = ("cloud", "balloon")
_IN_VIEW = {"cloud": 0.4, "balloon": 0.9}  # share of the size below the upper edge
_MAX_TRIES = 12  # spots looked at before a thing is left out
MIN_SHOWN = 16  # pixels; less of a thing is none that could be found
_MOST_OF_A_KIND = 4
_SHRUNK = 0.5, 0.9  # sizes where there are several, as shares
_BARE = 255  # in the mask: no thing was painted here


def draw_scene(
    rng: np.random.Generator, height: int = 144, width: int = 192
) -> tuple[np.ndarray, np.ndarray]:
    """One scene and its true categories.

    Args:
        rng: np.random.Generator; equal generators give equal scenes.
        height, width: Size in pixels.

    Returns:
        Tuple of image uint8 (height, width, 3) and mask uint8 (height, width) of
        indices into `CATEGORIES`.

    Example:
        >>> image, mask = draw_scene(np.random.default_rng(0), 48, 64)
        >>> image.shape, mask.shape
        ((48, 64, 3), (48, 64))
    """
    canvas, horizon = _backdrop(rng, height, width)
    # Far things first, so that near ones hide them.
    for spot in sorted(_spots(canvas, horizon), key=lambda spot: spot[0]):
        _place(canvas, *spot)
    return canvas.finish()


def draw_things(
    rng: np.random.Generator, height: int = 144, width: int = 192
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """One scene with several things of a kind, and what is seen of each of them.

    Args:
        rng, height, width: As for `draw_scene`.

    Returns:
        Tuple of image uint8 (height, width, 3) and a list of (kind, bool (height,
        width)), far things first. What shows less than `MIN_SHOWN` pixels is left out.

    Example:
        >>> image, things = draw_things(np.random.default_rng(3), 96, 128)
        >>> [kind for kind, shown in things]
        ['flowers', 'boat', 'boat', 'boat', 'boat']
    """
    canvas, horizon = _backdrop(rng, height, width)
    spots = sorted(_flocks(canvas, horizon), key=lambda spot: spot[0])
    numbers = np.zeros((height, width), np.uint8)
    for number, spot in enumerate(spots, 1):
        canvas.mask[:] = _BARE
        _place(canvas, *spot)
        numbers[canvas.mask != _BARE] = number
    shown = [(spot[-1], numbers == n) for n, spot in enumerate(spots, 1)]
    image, _ = canvas.finish()
    return image, [(kind, part) for kind, part in shown if part.sum() >= MIN_SHOWN]


def _backdrop(rng, height, width):
    """Sky over one ground or two, and the row where they meet."""
    canvas = _Canvas(rng, height, width)
    horizon = int(height * rng.uniform(0.2, 0.48))
    below = np.zeros((height, width), bool)
    below[horizon:] = True
    canvas.paint(~below, _sky(canvas), "sky")
    ground = rng.choice(BACKGROUNDS[1:], p=(0.4, 0.3, 0.3))
    canvas.paint(below, _ground(canvas, ground), ground)
    # A second ground in front, behind a slanted border; water alone would leave no
    # place for most kinds.
    if ground == "water" or rng.random() < 0.45:
        nearer = rng.choice([g for g in BACKGROUNDS[1:] if g != ground])
        left, right = rng.uniform(0.58, 0.82, 2) * height
        border = np.linspace(left, right, width)[None, :]
        canvas.paint(canvas.y > border, _ground(canvas, nearer), nearer)
    return canvas, horizon


def _spots(canvas, horizon):
    """Where three to six different kinds stand: list of (foot, x, size, kind)."""
    rng = canvas.rng
    ground = canvas.mask.copy()
    has_water = (ground == CATEGORIES.index("water")).any()
    kinds = list(rng.permutation([k for k in THINGS if k != "boat"]))
    # Boats need water, which half of the scenes lack: more of them where there is some.
    if has_water and rng.random() < 0.85:
        kinds.insert(0, "boat")
    taken = []
    for kind in kinds[: rng.integers(3, 7)]:
        spot = _spot(canvas, kind, ground, horizon, taken)
        if spot is not None:
            taken.append(spot)
    return taken


def _flocks(canvas, horizon):
    """Where one to three kinds stand, some of them several times, as `_spots`."""
    rng, ground = canvas.rng, canvas.mask.copy()
    taken = []
    for kind in rng.permutation(THINGS).tolist()[: rng.integers(1, 4)]:
        for _ in range(rng.integers(1, _MOST_OF_A_KIND + 1)):
            spot = _spot(canvas, kind, ground, horizon, taken, rng.uniform(*_SHRUNK))
            if spot is not None:
                taken.append(spot)
    return taken


def _spot(canvas, kind, ground, horizon, taken, scale=1.0):
    """(foot, x, size, kind) on ground that suits this kind; None if none was found."""
    rng, height, width = canvas.rng, canvas.height, canvas.width
    allowed = [CATEGORIES.index(k) for k in _STANDS_ON.get(kind, _LAND)]
    for attempt in range(_MAX_TRIES):
        near = rng.random()  # larger where it is nearer
        size = height * (0.32 + 0.3 * near) * rng.uniform(0.85, 1.2) * scale
        x = rng.uniform(0.08, 0.92) * width
        # Things overlap, but few hide others wholly: the first tries keep a distance.
        crowded = any(
            abs(x - there) < 0.35 * (size + extent) for _, there, extent, _ in taken
        )
        if crowded and attempt < _MAX_TRIES // 2:
            continue
        if kind in _IN_THE_AIR:
            lowest = max(horizon * rng.uniform(0.45, 0.95), _IN_VIEW[kind] * size)
            return lowest, x, size, kind
        foot = horizon + (height - horizon) * (0.12 + 0.85 * near)
        columns = np.clip([x - 0.35 * size, x, x + 0.35 * size], 0, width - 1)
        if np.isin(ground[int(foot), columns.astype(int)], allowed).all():
            return foot, x, size, kind
    return None


class _Canvas:
    """Image and mask that grow with every painted region."""

    def __init__(self, rng, height, width):
        self.rng, self.height, self.width = rng, height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.mask = np.zeros((height, width), np.uint8)
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32)
        self.frame = (height, width)

    def window(self, x, foot, size):
        """The part around a thing, sharing memory, and the thing's place in it.

        A texture costs as much as its canvas is large, and things are small.
        """
        left, right = int(max(x - 0.8 * size, 0)), int(x + 0.8 * size) + 1
        top, bottom = int(max(foot - 1.35 * size, 0)), int(foot + 0.15 * size) + 1
        part = object.__new__(_Canvas)
        part.rng, part.frame = self.rng, self.frame
        part.image = self.image[top:bottom, left:right]
        part.mask = self.mask[top:bottom, left:right]
        part.height, part.width = part.mask.shape
        part.y = self.y[: part.height, : part.width]
        part.x = self.x[: part.height, : part.width]
        return part, x - left, foot - top

    def paint(self, region, texture, category):
        texture = np.asarray(texture, np.float32)
        np.copyto(self.image, texture, where=region[..., None])
        self.mask[region] = CATEGORIES.index(category)

    def shape(self, draw):
        """Boolean region of what `draw` paints on an ImageDraw."""
        picture = Image.new("1", (self.width, self.height))
        draw(ImageDraw.Draw(picture))
        return np.asarray(picture)

    def noise(self, cells_y, cells_x=None):
        """Smooth noise about 0 with a spread near 1, (height, width, 1).

        Args:
            cells_y, cells_x: Cells along the whole frame, also in a window of it.
        """
        rows = max(cells_y * self.height // self.frame[0], 2)
        columns = max((cells_x or cells_y) * self.width // self.frame[1], 2)
        grid = self.rng.standard_normal((rows, columns), dtype=np.float32)
        picture = Image.fromarray(grid).resize(
            (self.width, self.height), Image.Resampling.BICUBIC
        )
        return np.asarray(picture)[..., None]

    def grain(self):
        size = (self.height, self.width, 1)
        return self.rng.standard_normal(size, dtype=np.float32)

    def color(self, hue, saturation, value, spread=0.04):
        """A colour near this hue (a number, or several to choose from)."""
        hue = self.rng.choice(np.atleast_1d(hue)) + self.rng.normal() * spread
        saturation = saturation * self.rng.uniform(0.7, 1.2)
        value = value * self.rng.uniform(0.8, 1.15)
        rgb = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
        return np.asarray(rgb, np.float32)

    def finish(self):
        """Light from one side, sensor noise, and 8 bits."""
        rng = self.rng
        slope = (rng.normal(size=2) * 0.12).astype(np.float32)
        light = 1.0 + slope[0] * (self.x / self.width - 0.5)
        light += slope[1] * (self.y / self.height - 0.5)
        tint = (1.0 + rng.normal(size=3) * 0.04) * rng.uniform(0.85, 1.1)
        image = self.image * light[..., None] * tint.astype(np.float32)
        image += self.grain() * np.float32(rng.uniform(0.005, 0.025))
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), self.mask


def _sky(canvas):
    top = canvas.color((0.58, 0.6, 0.55, 0.07), 0.5, 0.85)
    bottom = canvas.color((0.58, 0.1), 0.2, 0.95)
    share = (canvas.y / (0.55 * canvas.height))[..., None]
    return top * (1 - share) + bottom * share + 0.02 * canvas.noise(3, 5)


def _ground(canvas, kind):
    if kind == "grass":
        color = canvas.color((0.27, 0.22, 0.3), 0.6, 0.55)
        blades = canvas.noise(canvas.height // 3, canvas.width)
        return color * (1 + 0.22 * blades + 0.12 * canvas.noise(5))
    if kind == "water":
        color = canvas.color((0.55, 0.6, 0.48), 0.5, 0.6)
        ripples = canvas.noise(canvas.height // 2, 6)
        wave = np.sin(canvas.y * 0.9 + 2 * canvas.noise(4)[..., 0])[..., None]
        return color * (1 + 0.12 * ripples + 0.12 * wave)
    color = canvas.color((0.11, 0.09), 0.35, 0.85)
    return color * (1 + 0.1 * canvas.grain() + 0.08 * canvas.noise(6, 3))


def _place(canvas, foot, x, size, kind):
    """Draws a thing with its shadow."""
    part, x, foot = canvas.window(x, foot, size)
    if kind not in _IN_THE_AIR:
        blot = _box(x, foot, -0.55, 0.06, 0.55, -0.06, size)
        part.image[part.shape(lambda d: d.ellipse(blot, fill=1))] *= 0.6
    _DRAWERS[kind](part, x, foot, size)


def _box(x, foot, left, top, right, bottom, size):
    """Corners of a part given in units of the size, from the middle of the foot."""
    return (x + left * size, foot - top * size, x + right * size, foot - bottom * size)


def _lit(canvas, x, size):
    """Shading of a round body: brighter on its left."""
    return 1.0 - 0.35 * np.clip((canvas.x - x) / size, -0.6, 0.6)[..., None]


def _tree(canvas, x, foot, size):
    rng = canvas.rng
    bark = canvas.color(0.07, 0.5, 0.4) * (1 + 0.25 * canvas.noise(8, 80))
    trunk = _box(x, foot, -0.09, 0.6, 0.09, 0.0, size)
    canvas.paint(canvas.shape(lambda d: d.rectangle(trunk, fill=1)), bark, "tree")
    leaves = canvas.color((0.3, 0.36, 0.08, 0.25), 0.7, 0.42)
    texture = leaves * (1 + 0.45 * canvas.noise(34, 44)) * _lit(canvas, x, size)

    def crown(d):
        for _ in range(7):
            cx, cy = x + rng.normal() * 0.17 * size, foot - rng.uniform(0.6, 1.1) * size
            r = rng.uniform(0.18, 0.28) * size
            d.ellipse((cx - r, cy - r, cx + r, cy + r), fill=1)

    canvas.paint(canvas.shape(crown), texture, "tree")


def _house(canvas, x, foot, size):
    wall = canvas.color((0.03, 0.1, 0.6, 0.0), 0.45, 0.7)
    course = max(size * 0.09, 3.0)
    row = np.floor((foot - canvas.y) / course)
    joint = ((foot - canvas.y) % course < 1.0) | (
        (canvas.x + row * course) % (2 * course) < 1.0
    )
    bricks = wall * np.where(joint, 0.6, 1.0)[..., None] * (1 + 0.05 * canvas.grain())
    body = _box(x, foot, -0.5, 0.65, 0.5, 0.0, size)
    canvas.paint(canvas.shape(lambda d: d.rectangle(body, fill=1)), bricks, "house")
    roof = canvas.color((0.02, 0.08, 0.6), 0.5, 0.45)
    tiles = roof * (1 + 0.3 * np.sin(canvas.y * 1.6 + 0.0 * canvas.x))[..., None]
    corners = [(x - 0.6 * size, foot - 0.63 * size), (x, foot - 1.1 * size)]
    corners.append((x + 0.6 * size, foot - 0.63 * size))
    canvas.paint(canvas.shape(lambda d: d.polygon(corners, fill=1)), tiles, "house")
    glass = canvas.color((0.15, 0.55), 0.4, 0.5)
    for left in (-0.36, 0.12):
        pane = _box(x, foot, left, 0.5, left + 0.22, 0.28, size)
        region = canvas.shape(lambda d, pane=pane: d.rectangle(pane, fill=1))
        canvas.paint(region, glass, "house")


def _car(canvas, x, foot, size):
    hue = canvas.rng.random()
    paint = canvas.color(hue, 0.75, 0.75)
    gloss = 1 + 0.35 * np.cos((foot - canvas.y) / size * 9.0)[..., None]
    hull = _box(x, foot, -0.6, 0.38, 0.6, 0.1, size)
    cabin = [
        (x - 0.38 * size, foot - 0.36 * size),
        (x - 0.25 * size, foot - 0.62 * size),
    ]
    cabin += [
        (x + 0.2 * size, foot - 0.62 * size),
        (x + 0.4 * size, foot - 0.36 * size),
    ]

    def body(d):
        d.rounded_rectangle(hull, radius=0.1 * size, fill=1)
        d.polygon(cabin, fill=1)

    canvas.paint(canvas.shape(body), paint * gloss, "car")
    for left in (-0.27, 0.0):
        pane = _box(x, foot, left, 0.57, left + 0.22, 0.4, size)
        region = canvas.shape(lambda d, pane=pane: d.rectangle(pane, fill=1))
        canvas.paint(region, (0.15, 0.2, 0.25), "car")
    for left in (-0.45, 0.2):
        wheel = _box(x, foot, left, 0.24, left + 0.25, -0.01, size)
        region = canvas.shape(lambda d, wheel=wheel: d.ellipse(wheel, fill=1))
        canvas.paint(region, (0.08, 0.08, 0.09), "car")


def _boat(canvas, x, foot, size):
    planks = canvas.color((0.06, 0.0, 0.6), 0.6, 0.5)
    stripes = 1 + 0.3 * np.sign(np.sin((foot - canvas.y) / size * 40.0))[..., None]
    hull = [(x - 0.6 * size, foot - 0.3 * size), (x + 0.6 * size, foot - 0.3 * size)]
    hull += [(x + 0.4 * size, foot), (x - 0.4 * size, foot)]
    canvas.paint(
        canvas.shape(lambda d: d.polygon(hull, fill=1)), planks * stripes, "boat"
    )
    cloth = canvas.color((0.1, 0.0, 0.55), 0.15, 1.0)
    folds = 1 - 0.2 * (np.sin((canvas.x - x) / size * 22.0) > 0.3)[..., None]
    sail = [
        (x - 0.02 * size, foot - 0.34 * size),
        (x - 0.02 * size, foot - 1.15 * size),
    ]
    sail.append((x + 0.5 * size, foot - 0.36 * size))
    jib = [(x - 0.06 * size, foot - 0.34 * size), (x - 0.06 * size, foot - 1.0 * size)]
    jib.append((x - 0.4 * size, foot - 0.36 * size))

    def sails(d):
        d.polygon(sail, fill=1)
        d.polygon(jib, fill=1)

    canvas.paint(canvas.shape(sails), cloth * folds, "boat")


def _cloud(canvas, x, foot, size):
    rng = canvas.rng
    white = canvas.color((0.6, 0.08), 0.06, 0.93)
    puffs = white * (1 + 0.09 * canvas.noise(12, 16))
    puffs = (
        puffs * (1.0 - 0.25 * np.clip((canvas.y - foot) / size + 0.3, 0, 1))[..., None]
    )

    def body(d):
        for _ in range(8):
            offset = np.clip(rng.normal() * 0.32, -0.48, 0.48)  # stays in the window
            cx, cy = x + offset * size, foot - rng.uniform(0.1, 0.3) * size
            r = rng.uniform(0.13, 0.24) * size
            d.ellipse((cx - 1.3 * r, cy - r, cx + 1.3 * r, cy + r), fill=1)

    canvas.paint(canvas.shape(body), puffs, "cloud")


def _balloon(canvas, x, foot, size):
    first, second = (
        canvas.color(canvas.rng.random(), 0.8, 0.85),
        canvas.color(0.12, 0.6, 1),
    )
    radius = 0.38 * size
    bulge = np.arcsin(np.clip((canvas.x - x) / radius, -1, 1))
    stripes = (np.sin(bulge * 6.0) > 0)[..., None]
    texture = np.where(stripes, first, second) * _lit(canvas, x, size)
    center = foot - 0.62 * size
    ball = (x - radius, center - radius, x + radius, center + radius)
    cone = [
        (x - 0.3 * size, center + 0.23 * size),
        (x + 0.3 * size, center + 0.23 * size),
    ]
    cone += [
        (x + 0.08 * size, foot - 0.13 * size),
        (x - 0.08 * size, foot - 0.13 * size),
    ]

    def body(d):
        d.ellipse(ball, fill=1)
        d.polygon(cone, fill=1)

    canvas.paint(canvas.shape(body), texture, "balloon")
    basket = _box(x, foot, -0.09, 0.12, 0.09, 0.0, size)
    wicker = canvas.color(0.08, 0.6, 0.45) * (1 + 0.2 * canvas.grain())
    region = canvas.shape(lambda d: d.rectangle(basket, fill=1))
    canvas.paint(region, wicker, "balloon")


def _flowers(canvas, x, foot, size):
    rng = canvas.rng
    leaf = canvas.color(0.36, 0.6, 0.35) * (1 + 0.3 * canvas.noise(30, 40))
    bush = _box(x, foot, -0.55, 0.5, 0.55, 0.0, size)
    canvas.paint(canvas.shape(lambda d: d.ellipse(bush, fill=1)), leaf, "flowers")
    petal = canvas.color((0.93, 0.98, 0.78, 0.14), 0.75, 0.95)
    spots = rng.uniform((-0.42, 0.08), (0.42, 0.46), size=(9, 2))
    r = 0.085 * size

    def discs(radius):
        def draw(d):
            for dx, dy in spots:
                cx, cy = x + dx * size, foot - dy * size
                d.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=1)

        return draw

    canvas.paint(canvas.shape(discs(r)), petal * (1 + 0.1 * canvas.grain()), "flowers")
    canvas.paint(canvas.shape(discs(0.4 * r)), canvas.color(0.13, 0.9, 0.9), "flowers")


def _rock(canvas, x, foot, size):
    rng = canvas.rng
    stone = canvas.color((0.08, 0.6), 0.12, 0.5)
    cracks = np.abs(canvas.noise(14, 18)) < 0.12
    texture = stone * (1 + 0.25 * canvas.noise(20, 26)) * np.where(cracks, 0.5, 1.0)
    angles = np.linspace(0, np.pi, 9)
    radius = rng.uniform(0.75, 1.1, 9)
    points = [
        (x + 0.58 * size * r * np.cos(a), foot - 0.62 * size * r * np.sin(a))
        for a, r in zip(angles, radius, strict=True)
    ]
    texture = texture * _lit(canvas, x, size)
    canvas.paint(canvas.shape(lambda d: d.polygon(points, fill=1)), texture, "rock")


def _person(canvas, x, foot, size):
    size = size * 1.15
    check = max(size * 0.08, 2.5)
    plaid = (np.floor(canvas.x / check) + np.floor(canvas.y / check)) % 2
    first, second = (
        canvas.color(canvas.rng.random(), 0.7, 0.7),
        canvas.color(0.1, 0.1, 0.95),
    )
    shirt = np.where(plaid[..., None] > 0, first, second)
    trousers = canvas.color((0.62, 0.08), 0.4, 0.3) * (1 + 0.15 * canvas.noise(60, 12))
    legs = [_box(x, foot, -0.15, 0.45, -0.02, 0.0, size)]
    legs.append(_box(x, foot, 0.02, 0.45, 0.15, 0.0, size))
    torso = _box(x, foot, -0.2, 0.82, 0.2, 0.4, size)
    arms = [(x - 0.33 * size, foot - 0.45 * size), (x - 0.18 * size, foot - 0.8 * size)]
    arms += [
        (x + 0.18 * size, foot - 0.8 * size),
        (x + 0.33 * size, foot - 0.45 * size),
    ]
    head = _box(x, foot, -0.11, 1.06, 0.11, 0.83, size)

    def lower(d):
        for leg in legs:
            d.rectangle(leg, fill=1)

    def upper(d):
        d.rounded_rectangle(torso, radius=0.06 * size, fill=1)
        d.line(arms[:2], fill=1, width=max(int(0.1 * size), 2))
        d.line(arms[2:], fill=1, width=max(int(0.1 * size), 2))

    skin = canvas.color(0.06, 0.45, 0.8)
    canvas.paint(canvas.shape(lower), trousers, "person")
    canvas.paint(canvas.shape(upper), shirt, "person")
    canvas.paint(canvas.shape(lambda d: d.ellipse(head, fill=1)), skin, "person")


def _cow(canvas, x, foot, size):
    facing = canvas.rng.choice((-1, 1))
    coat, patch = canvas.color(0.1, 0.06, 0.95), canvas.color((0.05, 0.07), 0.4, 0.22)
    texture = np.where(canvas.noise(13, 17) > 0.15, patch, coat) * _lit(canvas, x, size)
    body = _box(x, foot, -0.5, 0.7, 0.5, 0.25, size)
    middle = x + facing * 0.52 * size
    head = _box(middle, foot, -0.15, 0.86, 0.15, 0.55, size)

    def draw(d):
        d.rounded_rectangle(body, radius=0.18 * size, fill=1)
        d.ellipse(head, fill=1)
        for left in (-0.42, -0.22, 0.12, 0.32):
            d.rectangle(_box(x, foot, left, 0.3, left + 0.1, 0.0, size), fill=1)

    canvas.paint(canvas.shape(draw), texture, "cow")
    muzzle = _box(middle, foot, -0.1, 0.68, 0.1, 0.53, size)
    pink = canvas.color(0.0, 0.3, 0.8)
    canvas.paint(canvas.shape(lambda d: d.ellipse(muzzle, fill=1)), pink, "cow")


_DRAWERS = {
    "tree": _tree,
    "house": _house,
    "car": _car,
    "boat": _boat,
    "cloud": _cloud,
    "balloon": _balloon,
    "flowers": _flowers,
    "rock": _rock,
    "person": _person,
    "cow": _cow,
}
