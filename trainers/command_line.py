"""How every command of this project starts."""

import sys

import tensorflow as tf
from absl import app, flags


def run_main(main, module):
    """Runs a main with quiet logs; `--help` lists the flags of its module.

    Args:
        main: Function of the arguments.
        module: Name that its flags were defined under. absl shows those of the file
            that is run, which has another name when it is imported.
    """
    tf.get_logger().setLevel("ERROR")
    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main)
