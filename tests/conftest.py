"""What every test needs: quiet logs, four logical CPUs, the shared folder if any."""

import gc
import os
import pathlib
import shutil
import signal

gc.disable()  # until all is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A shell's background job ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before TensorFlow, which reads once whether oneDNN is on.
from slotcon_tf import garbage  # noqa: E402

# isort: split
import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

LOGICAL_CPUS = 4
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS,
)


def pytest_addoption(parser):
    parser.addoption(
        "--server_binary",
        default=os.getenv("SERVER_BINARY") or shutil.which("tensorflow_model_server"),
        help="TF Serving's binary: what the local server is tested by, it is too.",
    )


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: no long one is left alone at the end.

    Whole files, since their tests share what a fixture has made.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What traces graphs, as most tests do, is not slowed down by what is imported."""
    garbage.collect_seldom()
    gc.enable()


@pytest.fixture(autouse=True)
def precision_of_its_own():
    """What a test sets, the trainer's main included, ends with it."""
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def float64():
    """Keras computes in float64 during the test."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


@pytest.fixture
def mirrored():
    """Function: number of replicas -> MirroredStrategy on as many logical CPUs."""

    def strategy(replicas):
        # Every strategy numbers its collectives from 1, and a process remembers how
        # many devices a number had: strategies of two sizes would collide. TF's own
        # tests move the start as well.
        tf.distribute.MirroredStrategy._collective_key_base += 100_000
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])

    return strategy


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The recorded checkpoint's export, with warm-up requests; to be read only."""
    from slotcon_tf import SlotCon
    from slotcon_tf.serving.archive import export_model
    from tests.support.golden_case import CHECKPOINT
    from tests.support.saved_case import OPTIONS

    model = SlotCon.from_preset(CHECKPOINT)
    folder = tmp_path_factory.mktemp("exported") / "slotcon"
    return export_model(model, folder, options=OPTIONS, warmup_batches=[1, 3])


@pytest.fixture(scope="session")
def shared_folder():
    """The developers' folder of photographs and awkward files."""
    folder = pathlib.Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the developers' shared folder, {folder.name}/")
    return folder


def pytest_terminal_summary(terminalreporter):
    """The largest errors that the parity tests saw."""
    for report in terminalreporter.getreports("passed"):
        for name, errors in report.user_properties:
            if name == "largest_errors":
                test = report.nodeid.rpartition("::")[2]
                shown = ", ".join(f"{k} {float(e):.1e}" for k, e in errors.items())
                terminalreporter.write_line(f"{test}: largest errors: {shown}")


@pytest.fixture
def untraced():
    """Few steps take longer to trace than to run."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
