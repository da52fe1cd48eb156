"""Reads every image of a folder in advance, and reports sizes, formats and bad files.

    python -m trainers.check_data --data_dir=photos

Named as well: files that are missing, pipes and devices, remote files, and how many of
which extension were passed over. The exit status is 1 if an image is bad.
"""

from slotcon_tf.runs import CheckDataConfig, check_data
from slotcon_tf.runs.command import Command

main = Command(
    "check_data",
    CheckDataConfig,
    lambda config: 1 if check_data(config) else 0,
    __doc__,
)

if __name__ == "__main__":
    main()
