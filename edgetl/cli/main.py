"""The command `edgetl`, with all commands below it."""

from __future__ import annotations

import io
import sys

import click

from edgetl import __version__
from edgetl.cli.adapt import adapt
from edgetl.cli.deploy import deploy
from edgetl.cli.devices import devices, plan
from edgetl.cli.elsewhere import pull, push, remote, rollback
from edgetl.cli.finetune import finetune
from edgetl.cli.look import inspect, report, runs, verify
from edgetl.cli.machine import demo, doctor
from edgetl.cli.prepare import prepare
from edgetl.cli.use import benchmark, evaluate, predict

SECTIONS = {
    "Train and deploy": {
        adapt: "Prepare, fine-tune, deploy and evaluate in one call.",
        prepare: "Make a trainable directory from a pretrained network.",
        plan: "Predict whether a job fits a device.",
        finetune: "Train a prepared directory on labelled data.",
        deploy: "Write a run as one verified ONNX file.",
        evaluate: "Measure a deployed file on labelled data.",
        predict: "Predict the classes or numbers of files.",
        benchmark: "Measure time and memory of an ONNX file.",
    },
    "Another machine": {
        push: "Send a prepared directory, run or model over ssh.",
        pull: "Fetch a run, prepared directory or file over ssh.",
        rollback: "Restore what the last push replaced.",
        remote: "Run a command on another machine over ssh.",
    },
    "Look and check": {
        inspect: "Describe a prepared directory, run or model.",
        verify: "Check every hash of a prepared directory, run or model.",
        report: "Write a run's report and pictures anew.",
        runs: "Compare runs in a table.",
        devices: "List the known devices, or show one.",
        doctor: "Report what works on this machine, and how to fix the rest.",
        demo: "Learn handwritten digits in a minute, offline.",
    },
}
"""The commands in the order of the help, each with a line that fits a terminal."""


class _Main(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(each.name), short) for each, short in commands.items()])


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgetl")
def main() -> None:
    """Transfer learning on the edge: prepare with PyTorch, fine-tune and deploy without it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")


for _commands in SECTIONS.values():
    for _each, _short in _commands.items():
        _each.short_help = _short
        main.add_command(_each)
