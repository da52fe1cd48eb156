"""The scenes: repeatable, varied, balanced, prepared offline and safely."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from slotcon_tf.data import scenes
from slotcon_tf.data.drawing import BACKGROUNDS, CATEGORIES, THINGS, draw_scene


@pytest.fixture(scope="module")
def drawn():
    pictures = [draw_scene(np.random.default_rng([5, i])) for i in range(120)]
    return np.stack([p[0] for p in pictures]), np.stack([p[1] for p in pictures])


@pytest.fixture
def few(monkeypatch):
    """Preparing takes a second instead of half a minute."""
    monkeypatch.setattr(scenes, "NUM_TRAIN", 12)
    monkeypatch.setattr(scenes, "NUM_TEST", 4)


def test_ten_things_and_four_backgrounds():
    assert (len(THINGS), len(BACKGROUNDS)) == (10, 4)
    assert len(set(CATEGORIES)) == 14


def test_shapes_and_types(drawn):
    images, masks = drawn
    assert images.shape == (120, scenes.HEIGHT, scenes.WIDTH, 3)
    assert masks.shape == images.shape[:3]
    assert images.dtype == masks.dtype == np.uint8


def test_equal_generators_draw_equal_scenes():
    image, mask = draw_scene(np.random.default_rng([0, 7]))
    again, mask_again = draw_scene(np.random.default_rng([0, 7]))
    other, _ = draw_scene(np.random.default_rng([1, 7]))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (image != other).any()


def test_any_size_can_be_drawn():
    image, mask = draw_scene(np.random.default_rng(0), 61, 97)
    assert (image.shape, mask.shape) == ((61, 97, 3), (61, 97))


def test_categories_are_balanced(drawn):
    _, masks = drawn
    for index, name in enumerate(CATEGORIES):
        region = masks == index
        assert region.any((1, 2)).mean() > 0.2, f"{name} is in few scenes"
        assert region.mean() > 0.012, f"{name} covers few pixels"
    assert np.bincount(masks.ravel()).max() / masks.size < 0.35


def test_boats_stand_on_water_and_there_is_always_land(drawn):
    _, masks = drawn
    has = {c: (masks == i).any((1, 2)) for i, c in enumerate(CATEGORIES)}
    assert has["sky"].all()
    assert (has["grass"] | has["sand"]).all()
    # A boat may hide the last of its water, hence not all.
    assert has["water"][has["boat"]].mean() > 0.9


def test_colour_does_not_give_a_category_away(drawn):
    """A category varies in colour by more than the nearest other one is away."""
    images, masks = drawn
    means = {}
    for index, name in enumerate(CATEGORIES):
        shown = [i[m == index] for i, m in zip(images, masks, strict=True)]
        means[name] = np.array([s.mean(0) for s in shown if len(s) > 50])
    confusable = 0
    for name, own in means.items():
        centre, spread = own.mean(0), own.std(0).mean()
        others = [o.mean(0) for other, o in means.items() if other != name]
        nearest = min(np.linalg.norm(centre - o) for o in others)
        confusable += nearest < 2 * spread
    assert confusable >= 10


def test_builder_prepares_quietly_and_repeats(few, tmp_path, capfd):
    images, masks = scenes.scenes_arrays("train", str(tmp_path / "a"))
    again, masks_again = scenes.scenes_arrays("train", str(tmp_path / "b"))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, masks_again)
    assert images.shape == (12, scenes.HEIGHT, scenes.WIDTH, 3)
    printed, logged = capfd.readouterr()
    assert printed == ""
    assert "examples/s" not in logged  # the progress bar of tfds


def test_splits_differ_and_name_their_categories(few, tmp_path):
    builder = scenes.scenes_builder(str(tmp_path))
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sizes == {"train": 12, "test": 4}
    assert tuple(builder.info.metadata["categories"]) == CATEGORIES
    train, _ = scenes.scenes_arrays("train", str(tmp_path))
    test, _ = scenes.scenes_arrays("test", str(tmp_path))
    assert not any((a == b).all() for a in train for b in test)


def test_masks_survive_and_images_nearly_do(few, tmp_path):
    _, masks = scenes.scenes_arrays("test", str(tmp_path))
    drawn = [draw_scene(np.random.default_rng([1, i])) for i in range(4)]
    dataset = scenes.load_scenes("test", str(tmp_path))
    for row in tfds.as_numpy(dataset):
        mask = row["segmentation"][..., 0]
        (index,) = [i for i, d in enumerate(drawn) if (d[1] == mask).all()]
        error = np.abs(drawn[index][0].astype(int) - row["image"]).mean()
        assert error < 8  # grey levels, of JPEG
    assert len(scenes.scenes_arrays("test", str(tmp_path), limit=3)[0]) == 3
    assert masks.max() < len(CATEGORIES)


def test_a_cut_off_preparation_does_not_count(few, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "draw_scene", die)
        with pytest.raises(KeyboardInterrupt):
            scenes.scenes_builder(str(tmp_path))
    # What a killed process leaves, which cannot clean up behind itself.
    (tmp_path / "scenes" / "incomplete.ABC123_2.0.0").mkdir(parents=True)
    assert len(scenes.scenes_arrays("test", str(tmp_path))[0]) == 4


def test_the_second_of_two_processes_takes_the_first_ones_images(
    few, tmp_path, monkeypatch
):
    prepare = scenes.Scenes.download_and_prepare

    def overtaken(self, **options):
        monkeypatch.setattr(scenes.Scenes, "download_and_prepare", prepare)
        scenes.Scenes(data_dir=str(tmp_path)).download_and_prepare(**options)
        raise OSError("Directory not empty")  # what the rename then says

    monkeypatch.setattr(scenes.Scenes, "download_and_prepare", overtaken)
    builder = scenes.scenes_builder(str(tmp_path))
    assert builder.info.splits["train"].num_examples == 12


def test_a_folder_that_cannot_be_written_is_an_error(few, tmp_path):
    file = pathlib.Path(tmp_path) / "file"
    file.write_text("")
    with pytest.raises(OSError, match="file"):
        scenes.scenes_builder(str(file))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "dataset_info.json").unlink(), "no description"),
        (lambda folder: _cut(folder / "dataset_info.json"), "cannot be read"),
        (lambda folder: next(folder.glob("*test*")).unlink(), "no scenes-test"),
        (lambda folder: _cut(next(folder.glob("*train*"))), "a part of scenes-train"),
    ],
)
def test_scenes_without_all_that_was_drawn(damage, told, few, tmp_path):
    """They say what to do, and that helps."""
    folder = pathlib.Path(scenes.scenes_builder(str(tmp_path)).data_dir)
    damage(folder)
    with pytest.raises(ValueError, match=told) as caught:
        scenes.scenes_builder(str(tmp_path))
    assert f"{folder} must hold" in str(caught.value) and "\n" not in str(caught.value)
    assert "Delete that folder" in str(caught.value)
    shutil.rmtree(folder)
    assert scenes.scenes_builder(str(tmp_path)).info.splits["train"].num_examples == 12
