"""Commands that show what there is."""

from __future__ import annotations

import click

from edgetl.cli.options import json_option
from edgetl.cli.reporting import finish, reporting


@click.command()
@click.argument("path", type=click.Path())
@json_option
def inspect(path: str, as_json: bool) -> None:
    """Describe a prepared directory, a run, or a deployed model."""
    with reporting(as_json):
        import edgetl
        from edgetl.cli import outline

        found = edgetl.describe(path)
    finish(as_json, found, *(outline.artifacts(found) if found["kind"] == "artifacts" else outline.plain(found)))


@click.command()
@click.argument("run", type=click.Path())
@json_option
def report(run: str, as_json: bool) -> None:
    """Write RUN's report.html and plots anew (finetune writes them at its end)."""
    with reporting(as_json) as display:
        import edgetl
        from edgetl.cli import outline

        result = edgetl.write_report(run, on_event=display)
    finish(as_json, result, *outline.report_lines(result))


@click.command()
@click.argument("directory", type=click.Path())
@click.option(
    "--sort",
    type=click.Choice(["metric", "loss", "epochs", "seconds", "name"]),
    default="metric",
    show_default=True,
    help="Sort key, best first.",
)
@json_option
def runs(directory: str, sort: str, as_json: bool) -> None:
    """Compare the runs at and below DIRECTORY in a table."""
    with reporting(as_json) as display:
        import edgetl
        from edgetl.cli import outline
        from edgetl.cli.console import table

        found = edgetl.compare_runs(directory, sort=sort, on_event=display)
    finish(as_json, {"directory": directory, "runs": found}, *table(*outline.runs_table(found)))


@click.command()
@click.argument("path", type=click.Path())
@click.option(
    "--artifacts", type=click.Path(), metavar="DIR", help="The prepared directory that PATH should have come from."
)
@click.option("--run", type=click.Path(), metavar="RUN", help="The run that a deployed model should have come from.")
@json_option
def verify(path: str, artifacts: str | None, run: str | None, as_json: bool) -> None:
    """Check every hash of PATH: a prepared directory, a run, or a deployed model."""
    with reporting(as_json):
        import edgetl

        found = edgetl.verify(path, artifacts=artifacts, run=run)
    finish(
        as_json,
        found,
        f"{found.path} ({found.kind}) is what it says",
        *(f"  {phrase}" for phrase in found.checked),
        *(f"  not checked: {phrase}" for phrase in found.unchecked),
    )
