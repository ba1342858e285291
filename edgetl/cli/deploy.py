"""The command that writes the deployed file."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.elsewhere import how_to_go_back, joined, ssh_options
from edgetl.cli.options import Sections, json_option, options_of
from edgetl.cli.reporting import finish, reporting
from edgetl.deployment.settings import DeploySettings
from edgetl.errors import command
from edgetl.tasks.figures import figure, shown

if TYPE_CHECKING:
    from edgetl.deployment.deploy import DeployResult


@click.command(cls=Sections)
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="ONNX file to write.")
@click.option(
    "--to",
    metavar="[USER@]HOST:PATH",
    help="Push the file there over ssh, in the place of --out or besides; see edgetl push.",
)
@options_of(DeploySettings, besides=("out",))
@json_option
@ssh_options
def deploy(
    run: str,
    out: str | None,
    to: str | None,
    as_json: bool,
    port: int | None,
    identity: str | None,
    options: list[str],
    **form: Any,
) -> None:
    """Write RUN's best model as one ONNX file, from a sample to its probabilities or numbers, and verify it."""
    if out is None and to is None:
        raise click.UsageError("Give --out FILE, --to HOST:PATH, or both.")
    with reporting(as_json) as display, contextlib.ExitStack() as stack:
        import edgetl

        if to is not None:
            from edgetl.files.storage import temporary_directory
            from edgetl.remote import push
            from edgetl.remote.destination import parse_destination

            parse_destination(to)  # before anything is computed
        if out is None:
            out = str(stack.enter_context(temporary_directory()) / "model.onnx")
        result = edgetl.deploy(run, out=out, on_event=display, **form)
        next_lines = [f"next: {command('predict', result.model, 'INPUT')}"]
        if to is not None:
            pushed = push(out, to, ssh_options=joined(port, identity, options), on_event=display)
            result = replace(result, model=pushed.destination)
            next_lines = how_to_go_back(pushed, port, identity, options)
    kind = f"opset {result.opset}, IR {result.ir_version}" if result.format == "onnx" else "format ort"
    precision = result.precision
    if result.backbone_precision != "float32":
        precision += f" behind a backbone in {result.backbone_precision}"
    finish(
        as_json,
        result,
        f"{result.model} is ready: {result.size_mb:.1f} MB, {precision}, {kind}",
        f"  {verified(result)}, logits differ by {result.largest_difference:.1e} at most",
        *next_lines,
    )


def verified(result: DeployResult) -> str:
    """Say what the file's answers to the validation samples are, beside those of the run."""
    name, value = next(iter(result.figures.items()))
    seen = "" if result.held_out else ", which trained in the end"
    text = f"verified on {result.verified_samples} samples{seen}: {figure(name, value)}"
    if result.figures_before[name] != value:
        text += f" ({shown(name, result.figures_before[name])} before)"
    if result.compared.worse or result.compared.better:
        text += f", {result.compared.worse} answered worse and {result.compared.better} better"
    return text
