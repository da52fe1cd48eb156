"""Pictures: colours that keep their meaning, overlays, prototypes, curves."""

import numpy as np
import pytest
from PIL import Image

from slotcon_tf import SlotCon, backbone
from slotcon_tf.data import open_source
from slotcon_tf.evaluation.groups import predict_groups
from slotcon_tf.visualize import (
    label_colors,
    matched_colors,
    overlay,
    save_slots,
    slots_figure,
)
from slotcon_tf.visualize.charts import (
    grouped_curves,
    line_chart,
    read_history,
    svg_of,
    usage_chart,
)
from slotcon_tf.visualize.colors import text_color
from slotcon_tf.visualize.maps import (
    FeatureColors,
    ImageMaps,
    groups_at,
    map_reader,
    smooth,
)
from slotcon_tf.visualize.overlays import (
    fit_edge,
    numbered_overlay,
    region_points,
    spotlight,
)
from slotcon_tf.visualize.prototypes import PrototypeAtlas, nearest_images, usage_of

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB: what is left
# without the green and without the red cones.
SIGHTS = {
    "all cones": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def smallest_distance(colors, sight):
    """The smallest CIELAB distance of any two colours (76), as an eye sees them."""
    share = colors / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ SIGHTS[sight].T, 0.0, 1.0)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    x, y, z = (seen @ to_xyz.T / [0.95047, 1.0, 1.08883]).T
    x, y, z = (
        np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in (x, y, z)
    )
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return apart[~np.eye(len(lab), dtype=bool)].min()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    masks = np.zeros((3, 24, 32), np.int64)
    masks[:, 12:] = 1
    return images, masks + 5, masks


def test_a_colour_depends_on_the_id_alone():
    np.testing.assert_array_equal(label_colors(10), label_colors(2048)[:10])
    assert label_colors(2048).shape == (2048, 3)


def test_the_first_colours_are_distinct():
    colors = label_colors(48).astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert apart[~np.eye(48, dtype=bool)].min() >= 10  # of 765


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(("count", "least"), [(8, 15.0), (24, 13.0), (32, 10.0)])
def test_colour_blind_people_tell_the_first_colours_apart(sight, count, least):
    # 2.3 is a just noticeable difference.
    assert smallest_distance(label_colors(count), sight) >= least


def test_text_reads_on_every_colour():
    def luminance(color):
        share = color / 255.0
        linear = np.where(
            share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    for color in label_colors(200):
        levels = sorted((luminance(color), luminance(text_color(color))))
        assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5  # WCAG AA


def test_a_matched_group_takes_the_colour_of_its_class():
    colors = matched_colors(8, {5: 0, 6: 1}, 2)
    classes = label_colors(2)
    np.testing.assert_array_equal(colors[5], classes[0])
    np.testing.assert_array_equal(colors[6], classes[1])
    for other in (0, 1, 2, 3, 4, 7):
        assert not (colors[other] == classes).all(-1).any()


def test_overlay_keeps_void_and_marks_boundaries(batch):
    images, _, masks = batch
    labels = masks[0].copy()
    labels[:4] = 255
    out = overlay(images[0], labels, label_colors(2))
    np.testing.assert_array_equal(out[:4], images[0][:4])
    assert (out[12] == 255).all()  # the line between the halves
    assert (out[20] != images[0][20]).any()


def test_slots_png_has_three_columns_with_masks_and_two_without(batch, tmp_path):
    images, groups, masks = batch
    names, path = ("sky", "grass"), tmp_path / "deep" / "slots.png"
    figure = slots_figure(images, groups, masks, class_names=names, matching={5: 0})
    assert len(figure.axes) == 9
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(names)
    assert len(slots_figure(images, groups).axes) == 6
    save_slots(path, images, groups, masks, class_names=names)
    with Image.open(path) as picture:
        assert picture.width > 600


def test_numbers_stand_inside_of_regions():
    labels = np.zeros((60, 80), int)
    labels[:, 50:] = 4
    labels[5:55, 10:14] = 7  # thin, the larger part
    labels[40:52, 60:72] = 7  # compact
    rows, columns = np.mgrid[:60, :80]
    labels[(rows - 30) ** 2 + (columns - 30) ** 2 < 64] = 9
    points = {p.label: p for p in region_points(labels)}
    assert set(points) == {0, 4, 7, 9}
    for label, point in points.items():
        assert labels[point.row, point.column] == label
        near = np.hypot(rows - point.row, columns - point.column) < point.radius
        assert (labels[near] == label).all()
    assert abs(points[9].row - 30) <= 1 and abs(points[9].column - 30) <= 1
    assert points[7].column in range(10, 14)
    sevens = [p for p in region_points(labels, least_radius=5.0) if p.label == 7]
    assert len(sevens) == 2 and sevens[1].column in range(60, 72)


@pytest.mark.parametrize("size", [(40, 60), (600, 20), (1, 1), (3, 500)])
def test_overlays_take_any_size(size):
    image = np.full((*size, 3), 90, np.uint8)
    labels = np.zeros(size, int)
    labels[size[0] // 2 :] = 2047
    colors = label_colors(2048)
    out = numbered_overlay(image, labels, colors)
    assert out.shape == image.shape and out.dtype == np.uint8
    if size == (40, 60):
        plain = overlay(image, labels, colors)
        changed = (out != plain).any(-1)
        assert changed[:20].any() and changed[20:].any()  # both numbers
        assert changed.mean() < 0.6
    region = labels == 2047
    lit = spotlight(image, region, colors[5])
    np.testing.assert_array_equal(lit[region], image[region])


def test_numbers_do_not_cover_each_other():
    """Of narrow stripes side by side one has its number, as if it were alone."""
    image, colors = np.zeros((200, 300, 3), np.uint8), label_colors(2048)

    def pixels_of_numbers(stripes):
        labels = np.full((200, 300), 3)
        for stripe in range(stripes):
            labels[:, 100 + 3 * stripe : 103 + 3 * stripe] = 2000 + stripe
        numbered = numbered_overlay(image, labels, colors)
        return (numbered != overlay(image, labels, colors, 2)).any(-1).sum()

    assert 0 < pixels_of_numbers(0) < pixels_of_numbers(1)
    assert pixels_of_numbers(5) < 1.3 * pixels_of_numbers(1)


def test_pictures_keep_their_aspect():
    image = np.zeros((50, 200, 3), np.uint8)
    assert fit_edge(image, 100).shape == (25, 100, 3)
    assert fit_edge(image, 640, 400).shape == (100, 400, 3)
    assert fit_edge(image, 640) is image
    assert fit_edge(np.zeros((1, 5000, 3), np.uint8), 640).shape == (1, 640, 3)


@pytest.fixture(scope="module")
def model():
    return SlotCon(
        backbone("resnet18"),
        total_steps=1,
        num_prototypes=6,
        hidden_dim=8,
        projection_dim=4,
    )


def test_maps_of_any_size_agree_with_the_groups_of_batches(model):
    rng = np.random.default_rng(0)
    read = map_reader(model)
    for size in ((96, 64), (33, 129), (5, 7)):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize(size[::-1], Image.NEAREST))
        maps = read(image)
        assert maps.features.shape[:2] == maps.winners.shape
        assert maps.similarity.shape == (6,) and (abs(maps.similarity) <= 1.001).all()
        groups = groups_at(maps.logits, size)
        expected = predict_groups(model, image[None])[0]
        # Rounding decides at a few pixels where two prototypes are as near.
        assert (groups == expected).mean() > 0.999


def test_an_encoder_alone_has_features_only(model):
    image = np.full((64, 96, 3), 128, np.uint8)
    alone = map_reader(model.teacher.encoder, scale=0.5)(image)
    assert alone.logits is None and alone.features.shape == (1, 2, 512)
    whole = map_reader(model, scale=0.5)(image)
    np.testing.assert_allclose(alone.features, whole.features, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="scale must be positive"):
        map_reader(model, scale=0)
    with pytest.raises(ValueError, match="which must be"):
        map_reader(model, which="both")


def test_nearest_images_are_the_active_ones_by_cosine():
    similarity = [0.2, 0.9, 0.5, 0.9, 0.8, -0.4]
    active = [True, True, True, True, False, True]
    np.testing.assert_array_equal(nearest_images(similarity, active, 3), [1, 3, 2])
    np.testing.assert_array_equal(
        nearest_images(similarity, active, 9), [1, 3, 2, 0, 5]
    )
    assert len(nearest_images(similarity, np.zeros(6, bool), 5)) == 0


def test_the_atlas_counts_ranks_and_lights():
    atlas = PrototypeAtlas(4)
    image = np.zeros((30, 40, 3), np.uint8)
    left, top = np.zeros((2, 2, 4)), np.zeros((2, 2, 4))
    left[:, 0, 1] = left[:, 1, 3] = 1.0
    top[0, :, 3] = top[1, :, 0] = 1.0
    one = np.array([0.9, 0.1, 0.9, 0.2])
    atlas.add("one", image, ImageMaps(left, left, one))
    atlas.add("two", image, ImageMaps(top, top, one + 0.05))
    usage = atlas.usage()
    np.testing.assert_allclose(usage.shares, [0.25, 0.25, 0.0, 0.5])
    np.testing.assert_array_equal(usage.order, [3, 0, 1, 2])
    assert atlas.nearest(2, 5) == []  # similar, and active nowhere
    assert [number for number, _ in atlas.nearest(3, 5)] == [1, 0]
    assert [number for number, _ in atlas.nearest(0, 5)] == [1]
    assert atlas.num_images(3) == 2 and atlas.num_images(1) == 1
    picture, region = atlas.region(0, 1)
    assert picture.shape[:2] == region.shape
    width = region.shape[1]
    assert region[:, : width // 2 - 2].all() and not region[:, width // 2 + 2 :].any()


def test_usage_sums_to_one_and_tells_how_many_prototypes_it_is_like():
    even = usage_of([5, 5, 0, 5, 5, 0])
    assert even.shares.sum() == pytest.approx(1.0)
    assert even.entropy == pytest.approx(2.0) and even.perplexity == pytest.approx(4.0)
    assert even.unused == 2
    collapsed = usage_of([0, 9])
    assert (collapsed.entropy, collapsed.perplexity, collapsed.unused) == (0.0, 1.0, 1)
    with pytest.raises(ValueError, match="one position at least"):
        usage_of([0, 0])


def test_equal_features_have_equal_colours_whatever_their_image():
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(5, 16))
    small, large = rng.integers(0, 5, (3, 4)), rng.integers(0, 5, (7, 2))
    lengths = rng.uniform(0.5, 2.0, (7, 2, 1))  # the direction counts
    colors = FeatureColors([kinds[small], kinds[large] * lengths])
    first, second = colors(kinds[small]), colors(kinds[large] * lengths)
    for kind in range(5):
        seen = np.concatenate([first[small == kind], second[large == kind]])
        assert np.ptp(seen, axis=0).max() < 1e-5
    assert first.min() >= 0 and first.max() <= 1
    assert 0.5 < colors.explained.sum() <= 1.0 + 1e-6
    assert smooth(first, (30, 50)).shape == (30, 50, 3)


def test_components_of_next_to_nothing():
    alone = FeatureColors([np.ones((1, 1, 2))])
    assert np.isfinite(alone(np.ones((1, 1, 2)))).all()
    assert alone.explained.shape == (3,) and np.isfinite(alone.explained).all()
    with pytest.raises(ValueError, match="one position at least"):
        FeatureColors([])


HISTORY = """\
epoch,agreement,grouping_loss,loss,other,val_loss,val_nmi,val_agreement
0,0.5,2.0,3.0,1,NA,,NA
1,0.6,1.5,2.5,1,2.75,0.25,NA
2,0.7,1.0,2.0,nan,NA,,NA
3,0.8,0.
"""


def test_curves_join_what_belongs_together(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    epochs, columns = read_history(path)
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    assert "val_agreement" not in columns  # NA throughout
    np.testing.assert_array_equal(columns["val_loss"], [np.nan, 2.75, np.nan])
    groups = grouped_curves(columns)
    names = {title: [c.name for c in curves] for title, curves in groups.items()}
    assert names == {
        "Losses": ["loss", "grouping_loss"],
        "Health": ["agreement", "other"],
        "Evaluation": ["nmi"],
    }
    assert list(groups["Losses"][0].lines) == ["training", "validation"]
    path.write_text("")
    assert read_history(path)[1] == {}


def test_charts_are_inline_and_follow_the_pages_colour():
    lines = {"training": np.arange(3.0), "validation": np.array([np.nan, 1.0, np.nan])}
    for drawing in (
        line_chart([1, 2, 3], lines, "loss & <co>"),
        usage_chart(usage_of([3, 0, 2000, 1])),
        usage_chart(usage_of(np.arange(2048))),
    ):
        svg = svg_of(drawing)
        assert svg.startswith("<svg viewBox=") and svg.endswith("</svg>")
        assert "http" not in svg and "currentColor" in svg and "<script" not in svg


def test_samples_are_spread_and_leave_bad_ones_out(tmp_path):
    for number in range(9):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_text("no picture")
    source = open_source("folder", tmp_path, max_bad_share=1.0)
    found = list(source.sample(3))
    assert [(s.place, s.name) for s in found] == [(0, "0.png"), (2, "6.png")]
    assert list(source.bad.reasons) == [str(tmp_path / "3.png")]
    assert len(list(source.sample(100))) == 8
    fake = list(open_source("fake").sample(2))
    np.testing.assert_array_equal(fake[1].image, open_source("fake").load(512))
