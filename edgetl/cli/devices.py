"""Commands about devices: which are known, and what fits them."""

from __future__ import annotations

from typing import Any

import click

from edgetl import choices, defaults
from edgetl.cli.options import decode_option, json_option, memory_option, size
from edgetl.cli.reporting import finish, reporting

device_help = "A device's name (see `edgetl devices`), or a profile of your own such as ./mine.toml"


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


@click.command()
@click.argument("artifacts", type=click.Path())
@click.option("--device", default="this", show_default=True, metavar="NAME|FILE", help=f"{device_help}.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many samples, for the disk that their features take; with --augment, times one more than --views.",
)
@click.option(
    "--pictures",
    metavar="WxH",
    callback=lambda _, __, text: None if text is None else size(text, "--pictures"),
    help="Size of the photographs (JPEG), such as 4032x3024, which decoding takes memory for.",
)
@decode_option(defaults.DECODE)
@click.option("--engine", type=click.Choice(choices.ENGINES[1:]), help="What trains.  [default: the device's]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of a step.  [default: the device's]")
@click.option(
    "--cache-precision", type=click.Choice(choices.CACHE_PRECISIONS), help="Of features.  [default: the device's]"
)
@memory_option
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
