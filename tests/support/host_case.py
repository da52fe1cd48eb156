"""Several hosts as processes on loopback, forked from one that imports once."""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys

from tests.support.command import ENVIRONMENT, ROOT, free_ports, until

# Nothing of TensorFlow has started where it forks.
_FORKED = """
import importlib, json, os, runpy, sys
module = sys.argv[1]
importlib.import_module(module)
for variables, log, flags in json.loads(sys.argv[2]):
    child = os.fork()
    if not child:
        os.environ.update(variables)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(file, number)
        sys.argv = [module, *flags]
        del sys.modules[module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    print(child, flush=True)
while True:
    try:
        child, status = os.wait()
    except ChildProcessError:
        break
    print(json.dumps([child, os.waitstatus_to_exitcode(status)]), flush=True)
"""


class Host:
    """A process of a command.

    Attributes:
        name: As messages have it.
        pid: Of the process.
        command: What its errors begin with.
        status: Of its end; None: it runs.
        log: pathlib.Path of what it says.
    """

    def __init__(self, name, pid, log, command):
        self.name, self.pid, self.log = name, pid, pathlib.Path(log)
        self.command, self.status = command, None

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    @property
    def said(self):
        return self.log.read_text(errors="replace")

    @property
    def errors(self):
        """The lines by which the command ended, or speaks of errors."""
        lines = self.said.splitlines()
        return [line for line in lines if line.startswith(f"{self.command}: ")]


class Hosts(list):
    """Hosts of one run, the first one first."""

    def __init__(self, hosts, process):
        super().__init__(hosts)
        self.process = process
        self.ports = []  # of all that TF_CONFIG names

    def wait(self, count=None):
        """Until so many more have ended; default: all."""
        for _ in range(len(self) if count is None else count):
            line = self.process.stdout.readline()
            if not line:
                return
            pid, status = json.loads(line)
            next(host for host in self if host.pid == pid).status = status

    def until(self, text, index=0):
        """Until a host has said it."""
        until(lambda: text in self[index].said, text, self.process)


@contextlib.contextmanager
def hosts(folder, *flags, count=None, variables=None, module="trainers.pretrain"):
    """Starts the hosts of one run; they are killed if they still run at the end.

    Args:
        folder: Of their logs.
        flags: Of each host, a list; or of all.
        count: Hosts that TF_CONFIG names; default: one for each list of flags.
        variables: Dict of index to more environment variables.
        module: With a `main`, a `Command`.
    """
    ports = free_ports(count or len(flags))
    workers = [f"127.0.0.1:{port}" for port in ports]
    jobs = []
    for index, own in enumerate(flags):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": workers}, "task": task})
        more = {"TF_CONFIG": config, **(variables or {}).get(index, {})}
        jobs.append([more, str(folder / f"host{index}.log"), list(map(str, own))])
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKED, module, json.dumps(jobs)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    started = Hosts([], process)
    started.ports = ports
    command = importlib.import_module(module).main.name
    try:
        for index, job in enumerate(jobs):
            pid = int(process.stdout.readline())
            name = f"worker {index} ({workers[index]})"
            started.append(Host(name, pid, job[1], command))
        yield started
    finally:
        for host in started:
            host.kill()
        started.wait()
        process.wait()
        process.stdout.close()
