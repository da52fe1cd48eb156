"""Code that README and guide show: fenced blocks, their commands, what may be run."""

import dataclasses
import itertools
import pathlib
import re
import shlex
import tomllib
from importlib import import_module, util

from tests.support.command import ROOT

_FENCE = re.compile(
    r"^(?:<!--(?P<mark>[^\n]*)-->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")
SHELL, PYTHON = ("bash", "sh", "shell", "console"), ("python", "py")


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fenced block of a page, with the comment above it.

    Attributes:
        mark: "run", "not-run: why", or nothing.
    """

    page: pathlib.Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def skipped(self):
        """Whether it says that it is not run, and why."""
        return re.fullmatch(r"not-run: \S.{8,}", self.mark) is not None


def pages():
    """README and guide."""
    fixed = [ROOT / "README.md", ROOT / "examples" / "README.md"]
    if (ROOT / "CONTRIBUTING.md").exists():
        fixed.append(ROOT / "CONTRIBUTING.md")
    return fixed + sorted((ROOT / "docs").rglob("*.md"))


def fences(page):
    text = page.read_text()
    return [
        Fence(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["text"],
            (match["mark"] or "").strip(),
        )
        for match in _FENCE.finditer(text)
    ]


def commands(text):
    """Words of every command of a shell fence, in order.

    Args:
        text: Lines; a backslash joins two, `&&` and a last `&` part commands.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        parts = shlex.shlex(line, posix=True, punctuation_chars=True)
        parts.whitespace_split = True
        words = []
        for word in parts:
            if word in ("&&", "&", ";"):
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [words for words in found if words]


class UnknownCommandError(ValueError):
    """A shown command that nothing here can check."""


def module_of(words):
    """Module and flags of one of this project's commands, or None."""
    program = words[0].rpartition("/")[2]
    if _PYTHON.fullmatch(words[0]) and words[1:2] == ["-m"]:
        if words[2].split(".")[0] in ("trainers", "export"):
            return words[2], words[3:]
    elif program in (scripts := _scripts()):
        return scripts[program], words[1:]
    return None


def check(words):
    """Whether a command is one that works, as far as parsing tells.

    Raises:
        UnknownCommandError: If it is none that is known here.
        SettingError: If it is one of this project's, and its flags are not.
    """
    own = module_of(words)
    if own:
        module, flags = own
        main = import_module(module).main
        main.config([module, *flags])
        named = {flag.lstrip("-").partition("=")[0] for flag in flags}
        for known in main.config_class.settings().values():
            _need(not named.intersection(known.aliases), words)  # old names
    elif _PYTHON.fullmatch(words[0]) and words[1:2] == ["-m"]:
        _check_module(words[2], words[3:])
    elif words[0].rpartition("/")[2] in ("pip", "ruff", "pytest", "pre-commit"):
        _check_module(words[0].rpartition("/")[2], words[1:])
    elif _PYTHON.fullmatch(words[0]):
        _need((ROOT / words[1]).is_file(), words)
    elif (ROOT / words[0]).is_file():
        pass  # a script of the repository
    elif words[0] not in ("cd", "source", "."):
        _need(False, words)


def _check_module(name, words):
    if name == "venv":
        _need(len(words) == 1, words)
    elif name == "pip":
        _need(words[:1] == ["install"], words)
        _check_install(words[1:])
    elif name in ("ruff", "pytest", "mkdocs", "basedpyright", "pre-commit"):
        paths = [word for word in words if "/" in word and not word.startswith("-")]
        _need(all((ROOT / path.split("::")[0]).exists() for path in paths), words)
    else:
        _need(name.startswith("benchmarks.") and util.find_spec(name), words)


def _check_install(words):
    """Files of requirements exist, and extras are those of pyproject."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for path in (after for word, after in itertools.pairwise(words) if word == "-r"):
        _need((ROOT / path).is_file(), words)
    for word in words:
        own = re.fullmatch(r"(?:\.|slotcon_tf)\[(.*)\]", word)
        for extra in own[1].split(",") if own else ():
            _need(extra.strip() in project["optional-dependencies"], words)


def _need(condition, words):
    if not condition:
        raise UnknownCommandError(
            "A shown command must be one that a test can check, or its fence be "
            f"marked <!-- not-run: why -->. Received: {shlex.join(words)}."
        )


def _scripts():
    """Console command to the module of its main, as it is called in a checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        name: target.partition(":")[0].removeprefix("slotcon_tf.")
        for name, target in project.get("scripts", {}).items()
    }
