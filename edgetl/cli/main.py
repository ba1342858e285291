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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgetl")
def main() -> None:
    """Transfer learning on the edge: prepare with PyTorch, fine-tune and deploy without it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")


_DOING = (adapt, prepare, plan, finetune, deploy, evaluate, predict, benchmark)
_ELSEWHERE = (push, pull, rollback, remote)
_LOOKING = (inspect, verify, report, runs, devices, doctor, demo)
for command in (*_DOING, *_ELSEWHERE, *_LOOKING):
    main.add_command(command)
