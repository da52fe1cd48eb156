"""Who imports whom: rooms import what is below them, and nothing goes in circles."""

import ast
import functools
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("slotcon_tf", "slotcon_client", "trainers", "export", "benchmarks", "tests")
# From top to bottom; those on one line do not import each other. Single files of
# slotcon_tf that are not named here are the ground.
FLOORS = (
    ("tests",),
    ("benchmarks",),
    ("trainers", "export"),
    ("slotcon_tf",),  # its __init__, the names of users: nothing inside imports those
    ("slotcon_tf.runs",),
    ("slotcon_tf.serving",),
    ("slotcon_tf.detection", "slotcon_tf.segmentation"),
    ("slotcon_tf.visualize",),
    ("slotcon_tf.evaluation",),
    ("slotcon_tf.interop",),
    ("slotcon_tf.method",),
    ("slotcon_tf.encoders",),
    ("slotcon_tf.training",),
    ("slotcon_tf.data",),
    ("slotcon_tf.images",),
    ("slotcon_client",),  # without TensorFlow: below all of slotcon_tf
)
GROUND = len(FLOORS)
# Slow to import, or brought by extras.
# What extras of the client bring, imported where it is used.
CLIENT_EXTRAS = ("PIL", "pillow_heif", "pyarrow")
HEAVY = ("tensorflow_datasets", "numba", "sklearn", "matplotlib", "grpc", "keras_hub")


@functools.cache
def modules():
    """Dict of module name to file."""
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {name_of(path): path for path in files}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(types=True):
    """Dict of module to the modules of ours that it imports, inside functions too.

    Args:
        types: Whether what a type checker alone imports counts.
    """
    return {name: imports_of(name, path, types) for name, path in modules().items()}


def imports_of(name, path, types):
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    tree = ast.parse(path.read_text())
    if not types:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole != "slotcon_tf.__version__":  # which comes before all rooms
                    found.add(whole if whole in modules() else base)
    return (found & modules().keys()) - {name}


def is_for_types(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def floor_of(name):
    """Number of the floor, 0 at the top, and the room."""
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            inside = name.startswith(f"{room}.") and room != "slotcon_tf"
            if name == room or inside:
                return number, room
    return GROUND, name


def test_no_arrow_goes_up():
    wrong = []
    for name, others in imports().items():
        mine, room = floor_of(name)
        for other in others:
            theirs, their_room = floor_of(other)
            if theirs < mine or (theirs == mine < GROUND and their_room != room):
                wrong.append(f"{name} -> {other}")
    assert not wrong, sorted(wrong)


def test_nothing_goes_in_circles():
    left = {name: set(others) for name, others in imports(types=False).items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    # What is left reaches a circle; what none of them imports is not on one.
    while idle := left.keys() - set().union(*left.values()):
        for name in idle:
            del left[name]
    assert not left, sorted(left)


def test_helpers_are_imported_from_support():
    wrong = [
        f"{name} -> {other}"
        for name, others in imports().items()
        for other in others
        if other.startswith("tests.")
        and not f"{other}.".startswith("tests.support.")
        and name != other
    ]
    assert not wrong, sorted(wrong)


def test_the_client_imports_nothing_heavy():
    found = set()
    for name, path in modules().items():
        if floor_of(name)[1] != "slotcon_client":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    found -= {*sys.stdlib_module_names, "slotcon_client"}
    assert found <= {"numpy", "grpc", "google", *CLIENT_EXTRAS}, found


def test_light_rooms_stay_light():
    code = (
        "import sys, time, keras, tensorflow\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import slotcon_tf\n"
        "seconds = time.process_time() - start\n"
        "import slotcon_tf.images.decoding, slotcon_tf.interop\n"
        f"print(seconds, *(set({HEAVY}) & set(sys.modules) - before))\n"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert not heavy
    assert float(seconds) < 0.3  # beyond TensorFlow and Keras; of the processor
