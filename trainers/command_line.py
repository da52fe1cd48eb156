"""How every command of this project starts."""

import sys
import warnings

import tensorflow as tf
from absl import app, flags

from slotcon_tf import garbage, processor

PREFIX = (
    "prefix",
    None,
    "Of a torch or safetensors file with several encoders: what stands in front of the "
    "names of the one to take, such as backbone; . for names with nothing in front.",
)


class ModuleFlags:
    """Defines flags under the name of one module.

    Args:
        module: As `run_main` takes it.
    """

    def __init__(self, module):
        self._own = {"module_name": module}

    def string(self, name, default, text):
        flags.DEFINE_string(name, default, text, **self._own)

    def boolean(self, name, default, text):
        flags.DEFINE_bool(name, default, text, **self._own)

    def listed(self, name, default, text):
        flags.DEFINE_list(name, default, text, **self._own)

    def choice(self, name, default, values, text):
        flags.DEFINE_enum(name, default, values, text, **self._own)

    def integer(self, name, default, text, low=1):
        flags.DEFINE_integer(name, default, text, lower_bound=low, **self._own)

    def real(self, name, default, text, low=0.0, high=None):
        flags.DEFINE_float(
            name, default, text, lower_bound=low, upper_bound=high, **self._own
        )


def run_main(main, module):
    """Runs a main with quiet logs, behind a line about the processor on stderr.

    `--help` lists the flags of its module.

    Args:
        main: Function of the arguments.
        module: Name that its flags were defined under. absl shows those of the file
            that is run, which has another name when it is imported.
    """
    garbage.collect_seldom()
    tf.get_logger().setLevel("ERROR")
    # What is wrong with a file is said by its reason.
    warnings.filterwarnings("ignore", module=r"PIL\.")

    def told(argv):
        print(f"Processor: {processor.describe()}", file=sys.stderr, flush=True)
        return main(argv)

    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(told)
