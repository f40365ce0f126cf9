#!/usr/bin/env python3
"""The trace of `ttt perf run`, read with the schema of the package perfetto.

  trace_test.py TTT MODEL [-- FLAGS_OF_TTT...]

Without the package: skipped, status 77.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
except ImportError:
    print("skipped: no package perfetto here")
    sys.exit(SKIPPED)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ttt")
    parser.add_argument("model")
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "run.perfetto-trace"
        subprocess.run([arguments.ttt, "perf", "run", "--model", arguments.model, "--threads", "2", "--prompt-tokens", "24", "--new-tokens", "4",
                        "--trace", file, *arguments.flags], check=True, stdout=subprocess.DEVNULL)
        trace = Trace()
        trace.ParseFromString(file.read_bytes())

    tracks = {packet.track_descriptor.uuid: packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")}
    threads = [uuid for uuid, track in tracks.items() if track.HasField("thread")]
    counters = {uuid: track.name for uuid, track in tracks.items() if track.HasField("counter")}
    assert len(threads) == 1
    assert {"KV blocks used", "sequences in a step", "requests waiting", "prompt tokens from the cache"} <= set(counters.values()), counters
    assert all(track.parent_uuid in tracks for track in tracks.values() if track.HasField("parent_uuid"))

    events = [(packet.timestamp, packet.track_event) for packet in trace.packet if packet.HasField("track_event")]
    assert all(event.track_uuid in tracks for _, event in events)
    assert len({packet.trusted_packet_sequence_id for packet in trace.packet}) == 1
    stack, seen, before, moved = [], {}, 0, 0
    order = ["step", "layer", "module", "op"]
    for time, event in (e for e in events if e[1].track_uuid == threads[0]):
        assert time >= before, "slices out of order"
        before = time
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            (category,) = event.categories
            assert not stack or order.index(stack[-1]) <= order.index(category), (stack, category)
            seen.setdefault(category, set()).add(event.name)
            stack.append(category)
            moved += sum(a.uint_value for a in event.debug_annotations if a.name == "bytes")
        else:
            assert event.type == TrackEvent.TYPE_SLICE_END
            stack.pop()
    assert not stack, "slices that never end"
    assert set(seen) == set(order), seen
    assert seen["step"] == {"step"} and "layer 0" in seen["layer"]
    assert {"linear", "rms_norm"} <= seen["op"], seen["op"]
    assert any(name.endswith("attn.qkv") for name in seen["module"]), seen["module"]
    assert moved > 0
    samples = [event for _, event in events if event.type == TrackEvent.TYPE_COUNTER]
    assert {counters[event.track_uuid] for event in samples} == set(counters.values())
    assert any(event.double_counter_value > 0 for event in samples)
    print(f"ok: {len(events)} events on {len(tracks)} tracks")


if __name__ == "__main__":
    main()
