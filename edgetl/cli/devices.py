"""Commands about devices: which are known, and what fits them."""

from __future__ import annotations

from typing import Any

import click

from edgetl.cli.options import Sections, json_option, options_of
from edgetl.cli.reporting import finish, reporting
from edgetl.device.settings import PlanSettings


@click.command()
@click.argument("name", required=False)
@json_option
def devices(name: str | None, as_json: bool) -> None:
    """List the devices that edgetl knows, or show one: NAME, or a file with a profile."""
    with reporting(as_json):
        from edgetl.cli import outline
        from edgetl.cli.console import table
        from edgetl.device.profile import device_names, load_device

        names = (name,) if name else device_names()
        found = {each: load_device(each) for each in names}
    if name:
        finish(as_json, found[name], *outline.device(found[name]))
    else:
        finish(as_json, found, *table(*outline.devices_table(found)))


@click.command(cls=Sections)
@click.argument("artifacts", type=click.Path())
@options_of(PlanSettings)
@json_option
def plan(artifacts: str, as_json: bool, **options: Any) -> None:
    """Predict whether ARTIFACTS, a prepared directory, can be trained on a device, and how."""
    with reporting(as_json):
        import edgetl
        from edgetl.cli import outline

        result = edgetl.plan(artifacts, **options)
    finish(as_json, {**vars(result), "fits": result.fits}, *outline.plan_lines(result))
    if not result.fits:
        raise SystemExit(1)
