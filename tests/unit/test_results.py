"""One schema of scores: what is written comes back, and so do files of earlier days."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from slotcon_tf.evaluation.results import (
    joined,
    read_result,
    result,
    result_of,
    show_result,
    write_result,
)
from slotcon_tf.evaluation.series import series_line, show_series
from slotcon_tf.evaluation.tasks import Task

HITS = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
MISSES = HITS * [-1.0, 1.0] + [1.0, 0.0]


@pytest.fixture
def task():
    """Share of hits; the second of its classes does not occur."""
    return Task(
        lambda inference: HITS,
        lambda total: {"accuracy": float(total[0] / total[1])},
        lambda total: np.array([total[0] / total[1], np.nan]),
        ("bus", "car"),
    )


def measured(task, **counts):
    return result_of(
        "groups", task, counts, dataset="set", split="val", step=3, resamples=50
    )


def test_a_file_gives_back_what_was_measured(task, tmp_path):
    found = measured(task, untrained=MISSES, trained=HITS)
    write_result(tmp_path / "new" / "scores.json", found)
    again = read_result(tmp_path / "new" / "scores.json")
    assert again["rows"] == found["rows"] and again["step"] == 3
    assert again["rows"]["accuracy"]["trained"][0] == 0.75
    # JSON has no NaN: it is null there.
    assert "NaN" not in (tmp_path / "new" / "scores.json").read_text()
    assert np.isnan(again["classes"]["car"]["trained"])
    assert again["classes"]["bus"] == {"untrained": 0.25, "trained": 0.75}


def test_networks_measured_one_after_the_other(task):
    before = measured(task, untrained=HITS * [0.0, 1.0])
    assert list(before["rows"]["accuracy"]) == ["untrained"]
    row = joined(before, measured(task, trained=HITS))["rows"]["accuracy"]
    assert row["untrained"][0] == 0.0 and row["trained"][0] == 0.75
    assert row["difference"] == [0.75, None, None]


def test_scores_that_are_no_number_stay_so(tmp_path):
    """Such as of images without a labelled pixel: written, read, joined and shown."""

    def of(stage):
        return result(
            "groups", {"nmi": {stage: [np.nan, None, None]}}, {}, "set", "val"
        )

    write_result(tmp_path / "scores.json", of("untrained"))
    found = joined(read_result(tmp_path / "scores.json"), of("trained"))
    assert np.isnan(found["rows"]["nmi"]["difference"][0])
    write_result(tmp_path / "scores.json", found)
    text = io.StringIO()
    again = read_result(tmp_path / "scores.json")
    show_result(again, Console(file=text, width=100))
    assert text.getvalue().split()[-3:] == ["-", "-", "-"]
    assert all(np.isnan(value) for value, *_ in again["rows"]["nmi"].values())


@pytest.mark.parametrize(
    ("content", "metric", "row"),
    [
        (
            {"before": {"nmi": 0.1}, "after": {"nmi": 0.3}},
            "nmi",
            {"untrained": [0.1, None, None], "trained": [0.3, None, None]},
        ),
        ({"before": {"nmi": 0.1}}, "nmi", {"untrained": [0.1, None, None]}),
        (
            {
                "step": 9,
                "split": "val",
                "images": 2,
                "miou": 0.5,
                "classes": {"a": 1.0},
            },
            "miou",
            {"trained": [0.5, None, None]},
        ),
    ],
)
def test_files_of_earlier_versions(content, metric, row, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content))
    assert read_result(path)["rows"] == {metric: row}


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": 3}', "", "null"])
def test_what_is_no_result_is_refused(text, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        read_result(path)


def test_tables_show_values_intervals_and_classes(task):
    text = io.StringIO()
    found = measured(task, untrained=MISSES, trained=HITS)
    show_result(found, Console(file=text, width=100))
    assert "untrained [95%]" in text.getvalue() and "+0.5" in text.getvalue()
    assert "bus" in text.getvalue()
    alone = joined(measured(task, untrained=HITS), measured(task, trained=HITS))
    show_result(alone, Console(file=text, width=100))


def test_what_is_missing_is_told_alike_by_one_and_by_many(capsys):
    rows = {"box_aps": {"trained": [math.nan, None, None]}}
    found = {"task": "detection", "dataset": "mine", "step": 2, "rows": rows}
    assert series_line(found) == "detection, step 2: box_aps -"
    show_series([found, {**found, "rows": {}}, found])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [["2", "-"]] * 3
