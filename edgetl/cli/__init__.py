"""The command line: parse, call one function, print. Heavy imports happen inside the commands."""

from edgetl.cli.main import main as main
