"""The packages of the wheel; all else stands in pyproject.toml.

`trainers` and `export` are folders of the repository, and parts of the one importable
name in the wheel.
"""

from setuptools import find_packages, setup

_WITHIN = {f"slotcon_tf.{folder}": folder for folder in ("trainers", "export")}

setup(
    packages=[*find_packages(include=["slotcon_tf", "slotcon_tf.*"]), *_WITHIN],
    package_dir=_WITHIN,
)
