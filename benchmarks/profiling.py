"""Where the time of a traced function goes, by the name scopes of its operations."""

import collections
import pathlib
import re
import tempfile

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# Events of the runtime itself: threads that wait for operations.
_RUNTIME = ("KernelAndDeviceFunc", "ExecutorState")


def operation_times(run, device="CPU"):
    """Seconds of every operation of one call.

    An operation on a CPU is timed on the thread that runs it; helping threads are not
    seen, so shares are those of wall time where all operations use all cores alike.
    From every event the events inside of it are taken.

    Args:
        run: Function without arguments, called once. Trace it before.
        device: "CPU" or "GPU": whose operations count.

    Returns:
        Dict of operation name, scopes included, to seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = xplane_pb2.XSpace()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    times = collections.Counter()
    for plane in space.planes:
        if f"/{'host:' if device == 'CPU' else 'device:'}{device}" not in plane.name:
            continue
        for line in plane.lines:
            _add_line(times, plane, line)
    return dict(times)


def _add_line(times, plane, line):
    """Adds a thread's events: the time of each without what lies inside of it."""
    open_events = []  # of (end, name), the outermost first
    for event in sorted(line.events, key=lambda e: (e.offset_ps, -e.duration_ps)):
        start, end = event.offset_ps, event.offset_ps + event.duration_ps
        while open_events and open_events[-1][0] <= start:
            open_events.pop()
        seconds = event.duration_ps / 1e12
        if open_events:
            times[open_events[-1][1]] -= seconds
        name = _operation(plane, event)
        times[name] += seconds
        open_events.append((end, name))


def _operation(plane, event):
    """`scope/operation:Type`, from where the profiler put it on this device."""
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name in ("tf_op", "long_name"):
            return plane.stat_metadata[stat.ref_value].name or stat.str_value
    return plane.event_metadata[event.metadata_id].name


def by_scope(times, scopes, renamed=()):
    """Seconds per scope; what lies in none of them is under "other".

    Args:
        times: Of `operation_times`.
        scopes: Names of scopes. An operation belongs to the first that is a part of
            its path, numbers that TensorFlow added to it left out.
        renamed: Dict of parts of paths to the scopes that they stand for.

    Returns:
        Dict of scope to seconds, in the order of `scopes`.
    """
    sums = dict.fromkeys([*scopes, "other"], 0.0)
    for name, seconds in times.items():
        if name.partition(":")[0] in _RUNTIME:
            continue
        parts = name.split(":")[0].split("/")
        parts = {re.sub(r"(_\d+)+$", "", part) for part in parts}
        parts |= {renamed[part] for part in parts if part in renamed}
        sums[next((s for s in scopes if s in parts), "other")] += seconds
    return sums
