"""All hosts of a run go on from one checkpoint, the one that the first host reads."""

from __future__ import annotations

import time

from absl import logging

from slotcon_tf.runs.checkpoints import Checkpoints, step_of
from slotcon_tf.runs.hosts import Hosts

# A network disk may show the others an older folder for so long: caches of NFS last 60
# s at most.
SECONDS_TO_SHOW = 90.0


def restore_together(hosts: Hosts, checkpoints: Checkpoints) -> int:
    """Restores the newest checkpoint; the others wait until they see the first one's.

    All hosts must call it at the same place.

    Args:
        hosts: Of the run.
        checkpoints: In the work directory that all of them share.

    Returns:
        The step that it was written after, of this host; 0 without a checkpoint.

    Raises:
        HostError: If another host ends meanwhile.
        WorkdirError, CheckpointError: As `Checkpoints.restore` does.

    Example:
        >>> class Kept:
        ...     restore = staticmethod(lambda: 7)
        >>> restore_together(Hosts(), Kept())
        7
    """
    if hosts.leads:
        step = checkpoints.restore()
        hosts.first_says({"step": str(step)})
        return step
    step = int(hosts.first_says({})["step"])
    # Never so long that the first host takes this one for lost.
    end = time.monotonic() + min(SECONDS_TO_SHOW, 30 * hosts.wait_minutes)
    told = False
    while step and step not in map(step_of, checkpoints.paths()):
        if time.monotonic() > end:
            break
        if not told:
            told = True
            logging.info("Waiting for the checkpoint of step %d to show here", step)
        time.sleep(0.5)
    return checkpoints.restore()
