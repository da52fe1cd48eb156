"""The launchers of examples/launch and the Dockerfile, in dry form on this machine."""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from slotcon_tf.runs.cluster import Cluster
from tests.support.command import ENVIRONMENT, ROOT, TINY
from trainers.pretrain import main

LAUNCH = ROOT / "examples" / "launch"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a node has: the controller's names, and a process of each of two tasks.
_SCONTROL = """echo "scontrol $*" >> calls
[ "$1" != show ] || printf '127.0.0.1\\n127.0.0.1\\n'
"""
_SRUN = """echo "srun $1" >> calls
shift
for index in 0 1; do
    SLURM_PROCID=$index "$@" > task$index.log 2>&1 &
    started="$started $!"
done
worst=0
for one in $started; do
    wait $one || { status=$?; [ $status -le $worst ] || worst=$status; }
done
exit $worst
"""
_TOLD = """echo "$TF_CONFIG $*"; exit 143"""
_GCLOUD = """for word; do printf '%s\\0' "$word"; done >> calls
printf '\\n\\0' >> calls
[ "$4" != describe ]
"""


def commands(folder, **texts):
    """Environment in which these shell scripts are commands; $0 logs into a folder."""
    (folder / "bin").mkdir()
    for name, text in texts.items():
        path = folder / "bin" / name.replace("_", "-")
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    return {**ENVIRONMENT, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def launched(folder, script, *words, **environment):
    return subprocess.run(
        ["bash", LAUNCH / script, *words],
        cwd=folder,
        env={**environment, "SLURM_JOB_ID": str(os.getpid())},
        capture_output=True,
        text=True,
    )


def slurm(folder, *flags, trainer):
    given = {"SLURM_JOB_NODELIST": "node[1-2]", "PYTHONPATH": str(ROOT)}
    texts = {"scontrol": _SCONTROL, "srun": _SRUN, "slotcon_pretrain": trainer}
    return launched(folder, "slurm.sh", *flags, **commands(folder, **texts), **given)


def test_slurm_gives_every_task_its_place_and_queues_again(tmp_path, monkeypatch):
    done = slurm(tmp_path, "--recipe=coco", "--workdir=a b", trainer=_TOLD)
    assert done.returncode == 143, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert f"scontrol requeue {os.getpid()}\n" in calls
    assert "srun --kill-on-bad-exit=0" in calls
    for index in range(2):
        told = (tmp_path / f"task{index}.log").read_text()
        config, end, flags = told.partition("}} ")
        monkeypatch.setenv("TF_CONFIG", config + end)
        cluster = Cluster.from_environment()
        assert cluster.index == index and flags == "--recipe=coco --workdir=a b\n"
        assert [cluster.place(i)[0] for i in range(2)] == ["127.0.0.1"] * 2


def test_slurms_settings_are_known():
    lines = re.findall(r"^#SBATCH --(.*)$", (LAUNCH / "slurm.sh").read_text(), re.M)
    given = dict(line.split("=", 1) if "=" in line else (line, "") for line in lines)
    assert given["ntasks-per-node"] == "1" and "requeue" in given
    # To the steps, not to the script: python saves.
    assert re.fullmatch(r"TERM@\d+", given["signal"])


@pytest.mark.slow
def test_slurm_trains(tmp_path):
    flags = [*TINY, "--epochs=1", "--max_steps_per_epoch=1", "--noexport"]
    trainer = f'exec {sys.executable} -m trainers.pretrain "$@"\n'
    done = slurm(tmp_path, *flags, f"--workdir={tmp_path / 'run'}", trainer=trainer)
    said = [(tmp_path / f"task{index}.log").read_text() for index in range(2)]
    assert done.returncode == 0, said[0][-3000:]
    assert all("CollectiveAllReduceStrategy, 2 replica(s)" in text for text in said)
    assert (tmp_path / "run" / "slots.png").exists()
    assert "requeue" not in (tmp_path / "calls").read_text()


def test_kubernetes_pods_are_a_cluster(monkeypatch):
    yaml = pytest.importorskip("yaml", reason="keras-hub brings it")
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = [one["containerPort"] for one in container["ports"]]
    # How the pods find each other.
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert service["metadata"]["name"] == pod["subdomain"]
    hosts = [
        f"{job['metadata']['name']}-{index}.{pod['subdomain']}"
        for index in range(spec["completions"])
    ]
    for index in range(spec["completions"]):
        known = {}
        for variable in container["env"]:
            if "valueFrom" in variable:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                assert "batch.kubernetes.io/job-completion-index" in path
                known[variable["name"]] = str(index)
                continue
            # Kubernetes puts in what stands above.
            text = variable["value"]
            for name, value in known.items():
                text = text.replace(f"$({name})", value)
            known[variable["name"]] = text
        monkeypatch.setenv("TF_CONFIG", known["TF_CONFIG"])
        cluster = Cluster.from_environment()
        assert cluster.index == index
        assert [cluster.place(i) for i in range(len(hosts))] == [
            (host, port) for host in hosts
        ]
    # Flags are known, and what they name is mounted; the rest may be read-only.
    config = main.config(["pretrain", *container["args"]])
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert mounts["/data"]["readOnly"] and config.data_dir.startswith("/data/")
    assert config.workdir.startswith("/runs/") and "/tmp" in mounts
    assert {one["name"] for one in pod["volumes"]} == {
        one["name"] for one in container["volumeMounts"]
    }


def test_a_tpu_vm_is_made_and_trains(tmp_path):
    given = commands(tmp_path, gcloud=_GCLOUD, git='echo "$*" >> git_calls')
    given["TPU_DISK"] = "projects/p/disks/d"
    flags = ["--recipe=coco", "--data_dir=/data/a b", "--mean=0.5,0.5,0.5"]
    flags.append("--std=0.2,0.2,0.2")
    done = launched(tmp_path, "tpu_vm.sh", "mine", "us-central2-b", *flags, **given)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "calls").read_text()
    calls = [call.strip("\0").split("\0") for call in text.split("\n\0") if call]
    archived = (tmp_path / "git_calls").read_text()
    assert f"-C {ROOT} archive --format=tgz --prefix=slotcon/" in archived
    assert all(call[:3] == ["compute", "tpus", "tpu-vm"] for call in calls)
    assert all("--zone=us-central2-b" in call for call in calls)
    kinds = ["describe", "create", "scp", "ssh", "ssh"]
    assert [call[3] for call in calls] == kinds
    assert calls[1][-1] == "--data-disk=source=projects/p/disks/d,mode=read-only"
    install, train = (call[-1].removeprefix("--command=") for call in calls[3:])
    for remote in (install, train):
        subprocess.run(["bash", "-n"], input=remote, text=True, check=True)
    # The same words as the page on installing has.
    page = (ROOT / "docs" / "install.md").read_text()
    lines = [line.strip().replace("-q ", "") for line in install.splitlines()]
    lines = [line.removeprefix("venv/bin/") for line in lines if "pip install" in line]
    assert len(lines) == 5 and all(line in page for line in lines[:4])
    assert lines[4].replace("./slotcon'", ".").startswith("pip install --no-deps .")
    command, _, _ = train.partition(">>")
    words = shlex.split(command)
    assert words[:3] == ["setsid", "nohup", "venv/bin/slotcon-pretrain"]
    config = main.config(["pretrain", *words[3:]])
    assert config.tpu == "local" and config.data_dir == "/data/a b"
    assert config.mean == (0.5, 0.5, 0.5)


def test_a_tpu_vm_needs_its_name(tmp_path):
    done = launched(tmp_path, "tpu_vm.sh", **commands(tmp_path, gcloud=_GCLOUD))
    assert done.returncode == 2 and "usage:" in done.stderr
    assert not (tmp_path / "calls").exists()


def _dockerfile():
    """(instruction, words) of each; its lines that go on are joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def test_the_dockerfile_copies_what_the_package_is_made_of():
    steps = _dockerfile()
    kept = []
    ignore = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignore[0] == "*"
    for kind, words in steps:
        if kind == "COPY":
            *sources, target = words.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                name = f"{source}/x" if (ROOT / source).is_dir() else source
                allowed = [line[1:] for line in ignore if line.startswith("!")]
                assert any(fnmatch.fnmatch(name, one) for one in allowed), source
                kept.append(target.rstrip("/") + f"/{source}" * target.endswith("/"))
    # Files that the build reads, as pyproject.toml and setup.py name them.
    need = ["pyproject.toml", "setup.py", PROJECT["readme"], *PROJECT["license-files"]]
    need += ["slotcon_tf", "trainers", "export", "client"]
    assert sorted(kept) == sorted(f"/source/{name}" for name in need)


def test_the_dockerfile_installs_and_starts_the_command():
    steps = _dockerfile()
    assert [kind for kind, _ in steps][:2] == ["ARG", "FROM"]
    arguments = dict(words.split("=", 1) for kind, words in steps if kind == "ARG")
    assert arguments["BASE"] == "python:3.11-slim"  # within requires-python
    for extra in arguments["EXTRAS"].split(","):
        assert extra in PROJECT["optional-dependencies"]
    system, python = [words for kind, words in steps if kind == "RUN"]
    assert '"${TENSORFLOW}" "/source[${EXTRAS}]"' in python
    steps = dict(steps)
    assert steps["FROM"] == "${BASE}"
    *init, command = json.loads(steps["ENTRYPOINT"])
    # Process 1 hears no signal before it asks for it, which takes seconds of imports.
    assert init == ["tini", "--"] and " tini " in system
    assert command in PROJECT["scripts"]
    assert steps["USER"].split(":")[0] not in ("0", "root")
    # Nothing is written beside /runs and /tmp: a root that is read-only does.
    variables = dict(word.split("=", 1) for word in shlex.split(steps["ENV"]))
    for name in ("HOME", "KERAS_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        assert variables[name].startswith("/tmp"), name
    assert steps["WORKDIR"] == "/"
    config = main.config_class()
    assert os.path.join("/", config.workdir).startswith("/runs/")
