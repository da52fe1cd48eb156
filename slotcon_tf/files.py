"""Files that are there whole or not at all."""


def write_whole(path, write):
    """Gives a file open for writing bytes to `write`, and renames it into place after.

    Args:
        path: pathlib.Path.
        write: Function of the open file.
    """
    aside = path.with_name(f".writing-{path.name}")
    with aside.open("wb") as file:
        write(file)
    aside.replace(path)


def write_text(path, text):
    """Writes text, as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))
