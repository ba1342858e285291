"""Commands about this machine."""

from __future__ import annotations

import click

from edgetl.cli.options import json_option
from edgetl.cli.reporting import finish, reporting


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Report what works on this machine, and how to fix the rest."""
    with reporting(as_json):
        from edgetl.device.doctor import examine

        found = examine()
    memory = "unknown" if found.memory_mb is None else f"{found.memory_mb / 1e3:.1f} GB"
    abilities = (("prepare", found.prepare), ("finetune", found.finetune), ("deploy", found.deploy))
    finish(
        as_json,
        found,
        f"edgetl {found.edgetl_version}, Python {found.python}, {found.platform}",
        f"  {found.cores} cores, {memory} of memory, {found.machine}",
        f"  onnxruntime: {', '.join(f'{name} {v}' for name, v in found.distributions.items()) or 'none'}",
        f"  execution providers: {', '.join(found.providers) or 'none'}",
        f"  --engine auto takes: {found.engine or 'nothing'} ({found.engine_reason})",
        *(f"  {'can   ' if ability.works else 'cannot'} {name}: {ability.why}" for name, ability in abilities),
        *(f"  extra {name}: {ability.why}" for name, ability in found.extras.items()),
    )
    if found.problem is not None:
        raise SystemExit(1)


@click.command()
@click.option(
    "--out", type=click.Path(), help="Keep what the demo makes in this directory.  [default: a temporary one]"
)
@json_option
def demo(out: str | None, as_json: bool) -> None:
    """The whole story in a minute, offline: learn handwritten digits from a few examples each."""
    with reporting(as_json) as display:
        from edgetl.demo.story import draw, run_demo

        result = run_demo(out, on_event=display)
    if not as_json:
        draw(result)
    finish(as_json, result)
