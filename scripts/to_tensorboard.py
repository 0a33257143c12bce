#!/usr/bin/env python3
"""Writes runs as TensorBoard event files: every number of the log against step and time of day, norms of layers, options, samples and the
picture of the curve. Written again, a file is replaced."""
import argparse
import io
import os
import struct

import exports
import figures
import runs as runs_of
from runs import RunError, reason


def library():
    """What of tensorboard makes event files; TensorFlow is not needed."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
        from tensorboard.plugins.hparams import plugin_data_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise RunError(f"tensorboard is missing, or does not work ({error}); install it by: pip install tensorboard") from None
    return event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2, plugin_data_pb2, RecordWriter


class Events:
    """The content of an event file, made in memory."""

    def __init__(self, wall_time):
        self.event, self.summary, self.tensor, self.shape, self.types, self.hparams, writer = library()
        self.memory = io.BytesIO()
        self.writer = writer(self.memory)
        self.writer.write(self.event.Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())

    def add(self, wall_time, step, values):
        summary = self.summary.Summary(value=values)
        self.writer.write(self.event.Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())

    def scalars(self, wall_time, step, numbers):
        self.add(wall_time, step, [self.summary.Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()])

    def metadata(self, plugin, content=b""):
        return self.summary.SummaryMetadata(plugin_data=self.summary.SummaryMetadata.PluginData(plugin_name=plugin, content=content))

    def text(self, wall_time, step, tag, text):
        shape = self.shape.TensorShapeProto(dim=[self.shape.TensorShapeProto.Dim(size=1)])
        tensor = self.tensor.TensorProto(dtype=self.types.DT_STRING, tensor_shape=shape, string_val=[text.encode("utf-8", "replace")])
        self.add(wall_time, step, [self.summary.Summary.Value(tag=tag, metadata=self.metadata("text"), tensor=tensor)])

    def picture(self, wall_time, step, tag, png):
        width, height = struct.unpack(">2I", png[16:24])   # of the header chunk
        image = self.summary.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self.add(wall_time, step, [self.summary.Summary.Value(tag=tag, metadata=self.metadata("images"), image=image)])

    def options(self, wall_time, options):
        """As hyperparameters of the dashboard of that name."""
        start = self.hparams.SessionStartInfo(start_time_secs=wall_time)
        for name, value in options.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, str):
                start.hparams[name].string_value = value
            else:
                start.hparams[name].number_value = value
        content = self.hparams.HParamsPluginData(version=0, session_start_info=start).SerializeToString()
        self.add(wall_time, 0, [self.summary.Summary.Value(tag="_hparams_/session_start_info", metadata=self.metadata("hparams", content))])


def events_of(run):
    """The event file of a run, as bytes, and the time of its first line."""
    times = exports.wall_times(run)
    events = Events(times[0])
    if run.options:
        events.options(times[0], exports.flat_options(run))
        events.text(times[0], 0, "options", exports.options_text(run))
    for at, record in zip(times, run.records):
        numbers = exports.scalars(record)
        del numbers["step"]
        events.scalars(at, record["step"], numbers)
    at_step = dict(zip((record["step"] for record in run.records), times))
    for step, text in exports.samples(run):
        events.text(at_step.get(step, times[-1]), step, "sample", "```\n" + text + "\n```")
    png = read_picture(os.path.join(run.path, "curve.png"))
    if png:
        events.picture(times[-1], run.steps, "curve", png)
    return events.memory.getvalue(), times[0]


def read_picture(path):
    """A PNG file's bytes; none where there is no such file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return b""
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 24 else b""


def write_run(run, directory):
    content, at = events_of(run)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {directory}: {reason(error)}") from None
    name = f"events.out.tfevents.{int(at):010d}.train_gpt"
    figures.write_whole(os.path.join(directory, name), content)
    for older in os.listdir(directory):
        if older.startswith("events.out.tfevents.") and older.endswith(".train_gpt") and older != name:
            os.remove(os.path.join(directory, older))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or its log.jsonl")
    parser.add_argument("-o", "--output", metavar="DIR", help="directory in which each run gets one of its name (default: RUN/tensorboard)")
    asked = parser.parse_args()
    library()
    runs = exports.with_steps(runs_of.read_runs(asked.runs))
    runs_of.warn_of(runs, "to_tensorboard.py")
    for run, name in zip(runs, exports.distinct_names(runs)):
        directory = os.path.join(asked.output, name) if asked.output else os.path.join(run.path, "tensorboard")
        write_run(run, directory)
        print(f"{run.path}: {len(run.records)} lines are in {directory}; look at them by: tensorboard --logdir {asked.output or directory}")


if __name__ == "__main__":
    runs_of.main_of(main, "to_tensorboard.py")
