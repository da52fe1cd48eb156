"""Apache Beam makes what one process makes; on its runner for one machine."""

import filecmp
import functools
import os

import numpy as np
import pytest

from slotcon_client.errors import ExtractionError
from slotcon_client.extraction import extract
from slotcon_tf.runs import PrepareConfig, prepare
from slotcon_tf.runs.command import CommandError
from slotcon_tf.runs.settings import SettingError
from tests.support.extraction_case import Sizes, files_in
from tests.support.picture_case import encoded, pictures

RUNNER = "--runner=DirectRunner"
OPTIONS = {"settings": {"version": 3}, "batch_size": 2, "shard_images": 5}


@pytest.fixture(scope="module", autouse=True)
def beam():
    reason = "needs apache-beam, of requirements-beam.txt"
    return pytest.importorskip("apache_beam", reason=reason)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, picture in enumerate(pictures(12)):
        (folder / f"{index:02d}.png").write_bytes(encoded(picture, "PNG"))
    (folder / "bad.jpg").write_bytes(b"no picture")
    return folder


def same(first, second):
    """Whether two folders hold the same bytes."""
    names = sorted(os.listdir(first))
    assert sorted(os.listdir(second)) == names
    return filecmp.cmpfiles(first, second, names, shallow=False)[0] == names


def test_the_same_shards(tmp_path):
    from export.beam import extract_with_beam

    images = files_in(tmp_path / "images", 12)
    for name in ("one", "two"):  # an empty file is one that is sent as it is
        for path in images.paths[1:]:
            open(path, "wb").close()
        output = str(tmp_path / name)
        if name == "one":
            failed = extract(Sizes().predict, images, output, **OPTIONS)
        else:
            failed = extract_with_beam(RUNNER, Sizes, images, output, **OPTIONS)
        assert len(failed) == 12
    assert same(tmp_path / "one", tmp_path / "two")
    assert sorted(p.name for p in tmp_path.glob("two*")) == ["two", "two.failed.txt"]
    other = {**OPTIONS, "settings": {"version": 4}}
    with pytest.raises(ExtractionError, match="other version: 3 there, 4 now"):
        extract_with_beam(RUNNER, Sizes, images, str(tmp_path / "two"), **other)


class Served(Sizes):
    """A client of a server, which has another version by now."""

    settings = {"version": 4}  # noqa: RUF012


def test_workers_of_another_version_write_nothing(tmp_path):
    from export.beam import FeatureHandler, extract_with_beam

    images, output = files_in(tmp_path / "images", 12), str(tmp_path / "two")
    # As the runner tells it: this one as it is, others as a RuntimeError.
    with pytest.raises((ExtractionError, CommandError), match="other version: 3 there"):
        extract_with_beam(RUNNER, Served, images, output, **OPTIONS)
    assert not list((tmp_path / "two").glob("0*"))
    FeatureHandler(Served, settings=Served.settings).load_model()
    with pytest.raises(ExtractionError, match="other version: 3 there, 4 now"):
        FeatureHandler(Served, settings=OPTIONS["settings"]).load_model()


@pytest.mark.slow
def test_the_command_asks_the_model_in_its_workers(exported, photos, tmp_path, capsys):
    from export.extract import ExtractConfig, extract_features

    config = ExtractConfig(
        export_dir=str(exported.parent),
        images=str(photos),
        output=str(tmp_path / "one"),
        batch_size=4,
        shard_images=8,
    )
    extract_features(config)
    shared = config.replace(output=str(tmp_path / "two"), beam=RUNNER)
    extract_features(shared)
    captured = capsys.readouterr()
    assert captured.out.count("12 of 13 images in") == 2
    assert captured.err.count("failed: bad.jpg (no known image format)") == 2
    assert same(tmp_path / "one", tmp_path / "two")
    with pytest.raises(SettingError, match="must be a folder where `beam` is set"):
        config.replace(output="a.npz", beam=RUNNER)


def test_run_inference(exported, photos, beam):
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.testing.util import assert_that

    from export.beam import FeatureHandler
    from export.extract import LocalModel

    files = {path.name: path.read_bytes() for path in sorted(photos.iterdir())[:5]}
    expected = LocalModel(exported.parent).predict(list(files.values()))["pooled"]

    def check(found):
        found = dict(found)
        for name, pooled in zip(files, expected, strict=True):
            np.testing.assert_allclose(found[name]["pooled"], pooled, atol=1e-5)

    make = functools.partial(LocalModel, str(exported.parent))
    handler = KeyedModelHandler(FeatureHandler(make, batch_size=2))
    with beam.Pipeline() as pipeline:
        keyed = pipeline | beam.Create(list(files.items()))
        assert_that(keyed | RunInference(handler), check)


def test_packing_gives_the_same_bytes(photos, tmp_path, capsys):
    config = PrepareConfig(data_dir=str(photos), output=str(tmp_path / "one"), shards=3)
    assert prepare(config) == (12, 1)
    shared = config.replace(output=str(tmp_path / "two"), beam=RUNNER)
    assert prepare(shared) == (12, 1)
    assert same(tmp_path / "one", tmp_path / "two")
    assert capsys.readouterr().out.count("12 images in") == 2
