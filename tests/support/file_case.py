"""Files of weights, made member by member."""

import io
import json
import zipfile


def torch_file(path, body, data=b"\0" * 64, **entries):
    """A zip file as torch.save makes it, around a pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", body)
        file.writestr("archive/data/0", data)
        for name, content in entries.items():
            file.writestr(f"archive/{name}", content)
    return path


def config_of(keras_file):
    with zipfile.ZipFile(io.BytesIO(keras_file)) as file:
        return json.loads(file.read("config.json"))


def replaced(keras_file, config=None, weights=None, how=zipfile.ZIP_STORED):
    """A .keras file with other members."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(keras_file)) as old,
        zipfile.ZipFile(out, "w", how) as new,
    ):
        for name in old.namelist():
            content = {"config.json": config, "model.weights.h5": weights}.get(name)
            new.writestr(name, old.read(name) if content is None else content)
    return out.getvalue()
