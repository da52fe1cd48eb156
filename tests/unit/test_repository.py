"""How versions come into a repository of Triton's models."""

import pytest

from slotcon_tf.serving import triton
from slotcon_tf.serving.triton import add_to_repository


@pytest.fixture
def added(tmp_path):
    """Function: text of a file, of a config -> the version that was added."""

    def add(content, config, repository=tmp_path / "onnx"):
        file, beside = tmp_path / "m.onnx", tmp_path / "contract.json"
        file.write_text(content)
        beside.write_text(f"of {content}")
        return add_to_repository(repository, "m", file, config, [beside])

    return add


def test_a_version_is_whole_and_has_its_own_contract(added):
    first, second = added("a", "small"), added("b", "small")
    assert (first.name, second.name) == ("1", "2")
    for version, content in ((first, "a"), (second, "b")):
        assert (version / "model.onnx").read_text() == content
        assert (version / "contract.json").read_text() == f"of {content}"
    assert {p.name for p in first.parent.iterdir()} == {"1", "2", "config.pbtxt"}


def test_old_weights_never_have_a_new_config(added, monkeypatch):
    """Whoever polls finds a config with the first, and the old one until a later."""
    seen = []

    def publish(aside, model):
        file = model / "config.pbtxt"
        seen.append(file.read_text() if file.exists() else None)
        return published(aside, model)

    published = triton.publish
    monkeypatch.setattr(triton, "publish", publish)
    added("a", "small")
    config = added("b", "large").parent / "config.pbtxt"
    assert seen == ["small", "small"] and config.read_text() == "large"
    # It is not touched where it says the same: servers that poll look at its time.
    before = config.stat().st_ino
    added("c", "large")
    assert config.stat().st_ino == before


def test_two_at_once_take_two_numbers(added, monkeypatch):
    published = triton.publish

    def late(aside, model):
        monkeypatch.setattr(triton, "publish", published)
        added("b", "small")  # another export, in between
        return published(aside, model)

    monkeypatch.setattr(triton, "publish", late)
    version = added("a", "small")
    assert version.name == "2" and (version / "model.onnx").read_text() == "a"
    assert (version.parent / "1" / "model.onnx").read_text() == "b"
