"""The files for TF Serving, Docker and Kubernetes are what those parse, and fit."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import export
from slotcon_tf.runs import ExportConfig
from tests.support.command import ROOT

yaml = pytest.importorskip("yaml", reason="parses the manifests")

FOLDER = pathlib.Path(export.__file__).parent / "serving"
MODELS = sorted(path.name for path in FOLDER.glob("models*.config"))
MANIFESTS = ("kubernetes.yaml", "kubernetes.gpu.yaml", "extract_job.yaml")
COMPOSE = ("compose.yaml", "compose.gpu.yaml")


def models(name):
    """Dict of model name to its configuration, as TF Serving parses it."""
    return models_of((FOLDER / name).read_text())


def models_of(text):
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    assert all(
        model.model_platform == "tensorflow" and model.base_path == "/models/slotcon"
        for model in config.model_config_list.config
    )
    return {model.name: model for model in config.model_config_list.config}


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def deployment(name):
    (found,) = (x for x in documents(name) if x["kind"] == "Deployment")
    return found["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", MODELS)
def test_clients_that_ask_for_nothing_get_what_is_stable(name):
    """TF Serving answers them with the newest version of the model's name."""
    found = models(name)
    versions = found["slotcon"].model_version_policy.specific.versions
    assert max(versions) == found["slotcon"].version_labels["stable"]
    for model in found.values():
        versions = model.model_version_policy.specific.versions
        assert set(model.version_labels.values()) <= set(versions)


def test_a_canary_is_a_newer_version_under_a_name_of_its_own():
    assert MODELS == ["models.config", "models_canary.config"]
    found = models("models_canary.config")
    assert found.keys() == {"slotcon", "slotcon_canary"}
    stable = found["slotcon"].version_labels["stable"]
    assert found["slotcon_canary"].version_labels["canary"] > stable
    assert "canary" not in found["slotcon"].version_labels


def edits(step):
    """The two texts of models.config of a row of the docs' table, by their words."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    (row,) = re.findall(rf"^\| {step}.*? \| (.*?) \|", text, re.MULTILINE)
    first, second = row.split("; once ")
    (both,) = re.findall(r"`(versions: .*?)`", first)
    awaited = int(re.match(r"(\d+) is AVAILABLE", second)[1])
    (label,) = re.findall(r"`stable` at (\d+)", second)
    (alone,) = re.findall(r"`(versions: .*?)`", second)
    return (both, None), awaited, (alone, label)


def edited(text, versions, label):
    text = re.sub(r"(?<=specific \{ ).*?(?= \})", versions, text)
    found = text if label is None else re.sub(r"(?<=value: )\d+", label, text)
    return found


class Loaded:
    """What TF Serving has loaded, by the rules that it reads configurations by.

    Labels are looked at first: one that is in use moves to a version that is loaded by
    then only; one that is not yet may be of any, by
    --allow_version_labels_for_unavailable_models. Of a file with another nothing is
    taken. Then versions are loaded, and after those others dropped.
    """

    def __init__(self):
        self.versions, self.labels = {}, {}

    def read(self, text):
        found = models_of(text)
        for name, model in found.items():
            for label, version in model.version_labels.items():
                used = self.labels.get(name, {}).get(label, version)
                if version != used and version not in self.versions[name]:
                    raise ValueError(f"{label} of {name} at {version}: not loaded")
        self.labels = {name: dict(x.version_labels) for name, x in found.items()}
        self.versions = {
            name: set(model.model_version_policy.specific.versions)
            for name, model in found.items()
        }

    def ask(self, name="slotcon", label=None):
        """The version that answers."""
        number = max(self.versions[name]) if label is None else self.labels[name][label]
        assert number in self.versions[name]
        return number


def test_taking_a_canary_and_going_back_as_the_docs_have_it():
    server, text = Loaded(), (FOLDER / "models.config").read_text()
    server.read(text)
    assert server.ask() == server.ask(label="stable") == 1
    server.read((FOLDER / "models_canary.config").read_text())
    assert server.ask("slotcon_canary", "canary") == server.ask("slotcon_canary") == 2
    assert server.ask() == server.ask(label="stable") == 1
    for step, old, new, between in [("take it", 1, 2, 2), ("go back to 1", 2, 1, 2)]:
        first, awaited, second = edits(step)
        assert awaited == new
        with pytest.raises(ValueError, match=f"stable of slotcon at {new}: not loaded"):
            server.read(edited(text, *second))  # in one edit it never would be
        assert server.ask() == old
        text = edited(text, *first)
        server.read(text)
        assert server.ask(label="stable") == old and server.ask() == between
        text = edited(text, *second)
        server.read(text)
        assert server.ask() == server.ask(label="stable") == new
        assert server.versions == {"slotcon": {new}}
    allowed = "--allow_version_labels_for_unavailable_models=true"
    assert all(allowed in flags(name) for name in (*COMPOSE, *MANIFESTS[:2]))


def flags(name):
    """What the server is started with: of compose, or of a manifest."""
    if name.startswith("compose"):
        return set(documents(name)[0]["services"]["slotcon"]["command"])
    return set(deployment(name)["args"])


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_only_gpus_batch_and_only_versions_that_say_so(kind):
    cpu, gpu = flags(f"{kind}.yaml"), flags(f"{kind}.gpu.yaml")
    assert not [flag for flag in cpu if "batch" in flag]
    assert gpu - cpu == {
        "--enable_batching=true",
        "--enable_per_model_batching_parameters=true",
        "--batching_parameters_file=/config/batching.config",
    }
    assert cpu <= gpu and {"--port=8500", "--rest_api_port=8501"} <= cpu
    for flag in gpu:
        if "/config/" in flag:
            assert (FOLDER / flag.partition("/config/")[2]).is_file()
    assert ExportConfig.settings()["batching"].default is False
    lines = (FOLDER / "batching.config").read_text().splitlines()
    assert [x for x in lines if x[0] != "#"] == ["num_batch_threads { value: 4 }"]
    for name in (f"{kind}.gpu.yaml",):
        assert "Not run: no GPU was at hand" in (FOLDER / name).read_text()


def test_the_config_map_holds_the_files():
    (found,) = (x for x in documents("kubernetes.yaml") if x["kind"] == "ConfigMap")
    for name, text in found["data"].items():
        assert text == (FOLDER / name).read_text()
    named = {x.partition("/config/")[2] for x in flags("kubernetes.gpu.yaml")} - {""}
    assert named == found["data"].keys()


@pytest.mark.parametrize("name", MANIFESTS[:2])
def test_pods_are_ready_with_a_model_alive_with_a_port_and_measured(name):
    found = deployment(name)
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for probe in ("startupProbe", "readinessProbe"):
        asked = found[probe]["httpGet"]
        assert asked == {"path": "/v1/models/slotcon/metadata", "port": "rest"}
    assert found["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    assert found["resources"]["requests"] and found["resources"]["limits"]
    mounts = {x["mountPath"]: x for x in found["volumeMounts"]}
    assert mounts["/models/slotcon"]["readOnly"] and mounts["/config"]["readOnly"]
    (whole,) = (x for x in documents(name) if x["kind"] == "Deployment")
    pod, want = whole["spec"]["template"], whole["spec"]["selector"]["matchLabels"]
    assert want.items() <= pod["metadata"]["labels"].items()
    assert {x["name"] for x in mounts.values()} == {
        volume["name"] for volume in pod["spec"]["volumes"]
    }
    path = pod["metadata"]["annotations"]["prometheus.io/path"]
    assert path in (FOLDER / "monitoring.config").read_text()


def test_every_server_is_of_one_version():
    images = {documents(x)[0]["services"]["slotcon"]["image"] for x in COMPOSE}
    images |= {deployment(name)["image"] for name in MANIFESTS[:2]}
    pinned = (ROOT / "requirements.txt").read_text()
    (version,) = (
        line.partition("==")[2]
        for line in pinned.splitlines()
        if line.startswith("tensorflow-serving-api==")
    )
    image = f"tensorflow/serving:{version}"
    assert images == {image, f"{image}-gpu"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_kubernetes(name):
    validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    for document in documents(name):
        validate.validate(document, "1.29", strict=True)


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_are_of_its_schema(name):
    if not importlib.util.find_spec("check_jsonschema"):
        pytest.skip("pip install check-jsonschema")
    words = [sys.executable, "-m", "check_jsonschema"]
    words += ["--builtin-schema", "vendor.compose-spec", str(FOLDER / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_as_many_pods_as_parts():
    (job,) = documents("extract_job.yaml")
    number = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == number
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # Kubernetes sets it in the pods of an Indexed Job.
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{number}" in container["args"]
    assert f"-of-{number:05}.npz" in (FOLDER / "extract_job.yaml").read_text()


def test_the_extraction_image_copies_and_starts_what_is_there():
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [x.split(None, 1) for x in text.splitlines() if x and x[0] != "#"]
    for kind, words in steps:
        if kind == "COPY":
            assert all((ROOT / source).exists() for source in words.split()[:-1])
    assert dict(steps)["FROM"] == "python:3.11-slim"  # within requires-python
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *init, command = json.loads(dict(steps)["ENTRYPOINT"])
    assert init == ["tini", "--"] and command in project["scripts"]
    _, python = (words for kind, words in steps if kind == "RUN")
    extras = re.search(r"/source\[(.*)\]", python)[1].split(",")
    assert set(extras) < set(project["optional-dependencies"])
