"""Labels of one class only are refused by every task: any network would be perfect."""

import keras
import numpy as np
import pytest

from slotcon_tf import SlotCon, backbone
from slotcon_tf.data.labelled import LabelError, open_classified, open_segmented
from slotcon_tf.evaluation import classification, tasks
from slotcon_tf.evaluation.inference import Inference
from slotcon_tf.evaluation.linear import LinearSettings
from slotcon_tf.runs.label_settings import (
    EvalLabelSettings,
    LabelSettings,
    label_options,
)
from slotcon_tf.runs.labelled_monitor import LabelledMonitor
from slotcon_tf.segmentation import Augmentation, crop_dataset, evaluate
from tests.support import labelled_case as case
from trainers import evaluate as command

QUICK = LinearSettings(steps=2, batch_size=2, label_stride=8)
CROPS = Augmentation(scale=(32, 32), crop_size=16)
IMAGE_SIZE = {"num_images": 4, "crop_size": 32}


def masks(root, splits=("train", "val"), values=(0, 255), classes=None):
    """Masks of two values, as drawing programs write them."""
    for split in splits:
        for index in range(3):
            image, found = case.scene([len(split), index], 32, 32)
            ids = np.array(values, np.uint8)[found % len(values)]
            case.save(image, root / split / f"{index}.png")
            case.save(ids, root / f"{split}annot" / f"{index}.png")
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Masks of 0 and 255 whose classes are said to be 0 and 1: 255 is void."""
    root = tmp_path_factory.mktemp("two")
    return masks(root, classes="0 ground\n1 object\n")


@pytest.fixture(scope="module")
def slotcon():
    keras.utils.set_random_seed(0)
    sizes = {"num_prototypes": 4, "hidden_dim": 8, "projection_dim": 8}
    encoder = backbone("resnet18", width=8, stage_depths=(1, 1, 1, 1))
    return SlotCon(encoder, total_steps=1, **sizes)


def opened(root, split="val", **options):
    return open_segmented("folders", root, split, **options)


TASKS = {
    "groups": lambda train, data: tasks.groups_task(data, 4),
    "linear": lambda train, data: tasks.linear_task(train, data, QUICK),
    "retrieval": lambda train, data: tasks.retrieval_task(train, data),
    "retrieval in itself": lambda train, data: tasks.retrieval_task(None, data),
    "cropping": lambda train, data: crop_dataset(data, CROPS, batch_size=1),
    "segmentation": lambda train, data: evaluate(lambda i: i[..., 0] * 0, data),
}


@pytest.mark.parametrize("name", TASKS)
def test_pixels_of_one_class(two, name):
    train, data = opened(two, "train"), opened(two)
    assert data.num_classes == 2  # one of which no label map has
    with pytest.raises(LabelError, match="two classes at least, or any network"):
        TASKS[name](train, data)
    both = [opened(two, s, label_ids=[0, 255]) for s in ("train", "val")]
    TASKS[name](*both)


@pytest.mark.parametrize("name", ["linear", "retrieval"])
def test_what_is_learned_from_counts_too(two, tmp_path, name):
    other = masks(tmp_path, values=(0, 1), classes="0 ground\n1 object\n")
    with pytest.raises(LabelError, match="only 'ground' and void.*label_ids=0,255"):
        TASKS[name](opened(two, "train"), opened(other))


def test_a_second_class_that_comes_late_is_found(tmp_path):
    root = masks(tmp_path, values=(0,), classes="0 ground\n1 object\n")
    with pytest.raises(LabelError, match="only 'ground'"):
        tasks.groups_task(opened(root), 4)
    case.save(np.eye(32, dtype=np.uint8), root / "valannot" / "2.png")
    tasks.groups_task(opened(root), 4)


def test_a_chosen_image_may_have_one_class(tmp_path):
    root = masks(tmp_path, values=(0,), classes="0 ground\n1 object\n")
    case.save(np.eye(32, dtype=np.uint8), root / "valannot" / "2.png")
    data, calls = opened(root), []

    def predict(image):
        calls.append(1)
        return image[..., 0] * 0

    assert evaluate(predict, data, indices=[0, 1])["pixel_accuracy"] == 1
    assert evaluate(predict, data)["pixel_accuracy"] < 1 and len(calls) == 5
    # Of all, one class only: said before the work. What passed is not read again.
    loads, load = [], data.load
    data.load = lambda index: loads.append(index) or load(index)
    tasks.groups_task(data, 4)
    assert not loads
    case.save(np.zeros((32, 32), np.uint8), root / "valannot" / "2.png")
    with pytest.raises(LabelError, match="two classes at least"):
        evaluate(predict, opened(root))
    assert len(calls) == 5


def one_folder(root, count=3):
    for split in ("train", "val"):
        for index in range(count):
            case.save(case.scene(index)[0], root / split / "red" / f"{index}.png")
    return root


@pytest.mark.parametrize("dataset", ["class_folders", "imagenet"])
def test_images_of_one_class(tmp_path, dataset):
    root = one_folder(tmp_path)
    with pytest.raises(LabelError, match="two classes at least.*one class only"):
        open_classified(dataset, root, "train")
    (root / "train" / "blue").mkdir()  # a class without images
    with pytest.raises(LabelError, match="two classes at least"):
        open_classified(dataset, root, "train")
    case.save(case.scene(9)[0], root / "train" / "blue" / "9.png")
    assert open_classified(dataset, root, "train").num_classes == 2
    with pytest.raises(LabelError, match="two classes at least"):
        open_classified(dataset, root, "train", max_images=1)


class OneLabel:
    """A set whose classes are known by its images only, as prepared sets are."""

    class_names = ("red", "blue")

    def __init__(self, labels):
        self.labels = labels

    def __iter__(self):
        for number, label in enumerate(self.labels):
            yield case.scene(number, 32, 32)[0], label


@pytest.mark.parametrize("labels", [([0, 0], [0, 1]), ([0, 1], [1, 1])])
@pytest.mark.parametrize("name", ["nearest_neighbours", "linear_classifier"])
def test_images_of_one_class_in_a_prepared_set(slotcon, name, labels):
    fit = getattr(classification, name)
    task = tasks.classification_task(fit, *map(OneLabel, labels))
    with pytest.raises(LabelError, match="two classes at least"):
        task.measure(Inference(slotcon))


def test_the_monitor_of_a_run(slotcon, two, tmp_path):
    def monitor(task, dataset, root, **options):
        names = {"split": "val", "train_split": "train"}
        return LabelledMonitor(
            slotcon, task, dataset, root, **names, **{**IMAGE_SIZE, **options}
        )

    with pytest.raises(LabelError, match="two classes at least.*eval_label_ids=0"):
        monitor("groups", "folders", two)
    with pytest.raises(FileNotFoundError, match="eval_data_dir.*eval_dataset"):
        monitor("groups", "folders", tmp_path)
    with pytest.raises(FileNotFoundError, match="data_dir") as caught:
        monitor("groups", "folders", tmp_path, prefix="")
    assert "eval_" not in str(caught.value)
    with pytest.raises(LabelError, match="two classes at least"):
        monitor("knn", "class_folders", one_folder(tmp_path))
    data = case.class_folders(tmp_path / "classes", train=2, val=2)
    every = monitor("knn", "class_folders", data, num_images=None)
    assert len(every.data) == 6  # of three classes
    scores = monitor("groups", "folders", two, labels={"label_ids": ["0", "255"]})()
    assert 0 < scores["miou"] < 1


def test_settings_of_label_maps_say_what_was_typed():
    nothing = {"class_file": None, "void_ids": None, "label_ids": None}
    own, eval_ = LabelSettings(), EvalLabelSettings()
    assert label_options(own) == label_options(eval_, "eval_") == nothing
    # Written into a run's flagfile, and compared when it goes on: as before.
    assert own.lines() == ["--void_ids="]
    # Such a line of a flagfile answers nothing: nobody has typed it.
    assert command.main.config(["evaluate", "--model=a", "--void_ids="]).void_ids == ()
    own = LabelSettings(void_ids=["none"])
    assert label_options(own) == {**nothing, "void_ids": []}
    eval_ = EvalLabelSettings(eval_label_ids=["0", "255"])
    assert label_options(eval_, "eval_") == {**nothing, "label_ids": ["0", "255"]}


@pytest.mark.slow
def test_the_command(slotcon, two, tmp_path, capsys):
    checkpoint = tmp_path / "slotcon.keras"
    slotcon.save(checkpoint)
    unnamed = masks(tmp_path / "unnamed")
    base = [f"--model={checkpoint}", "--resamples=0", "--steps=2", "--nobaseline"]
    every = ["--task=groups,linear,retrieval", "--label_ids=0,255"]
    settled = [f"--data_dir={two}", *every]
    knn = [f"--data_dir={one_folder(tmp_path / 'folders')}", "--dataset=class_folders"]
    for words in (
        settled,
        [f"--data_dir={unnamed}", "--task=groups", "--void_ids=none"],
    ):
        with pytest.raises(SystemExit) as end:
            command.main(["evaluate", *base, *words])
        told = capsys.readouterr()
        assert end.value.code == 0, told.err
        if words == settled:
            for word in ("groups: ", "linear: ", "retrieval: ", "object", "2 classes"):
                assert word in told.out
    for words, text in (
        ([f"--data_dir={unnamed}"], "It must be said what 255 is"),
        ([f"--data_dir={two}"], "Labelled pixels must be"),
        ([f"--data_dir={unnamed}", "--void_ids=255"], "Label maps must hold two"),
        ([*knn, "--task=knn"], "Labels must be of two"),
        ([*knn, "--task=classification"], "Labels must be of two"),
    ):
        with pytest.raises(SystemExit) as end:
            command.main(["evaluate", *base, *words])
        *_, last = capsys.readouterr().err.splitlines()
        assert end.value.code == 1 and last.startswith(f"evaluate: {text}")
