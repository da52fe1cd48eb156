"""The packages of the wheel; all else stands in pyproject.toml.

`trainers` and `export` are folders of the repository, and parts of `slotcon_tf` in the
wheel. The light client lies in `client`, which makes a wheel of its own as well.
"""

from setuptools import find_packages, setup

_WITHIN = {f"slotcon_tf.{folder}": folder for folder in ("trainers", "export")}

_CLIENT = find_packages("client", include=["slotcon_client", "slotcon_client.*"])

setup(
    packages=[
        *find_packages(include=["slotcon_tf", "slotcon_tf.*"]),
        *_WITHIN,
        *_CLIENT,
    ],
    package_dir={**_WITHIN, "slotcon_client": "client/slotcon_client"},
)
