"""The command that does all for one machine."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgetl.cli.deploy import deploy, verified
from edgetl.cli.finetune import finetune
from edgetl.cli.options import json_option
from edgetl.cli.prepare import as_arguments, prepare
from edgetl.cli.reporting import finish, how_to_resume, reporting
from edgetl.cli.use import evaluate
from edgetl.errors import command
from edgetl.shared_settings import MACHINE
from edgetl.tasks.figures import called, shown

if TYPE_CHECKING:
    from edgetl.adaptation import Adaptation

_STEPS = (prepare, finetune, deploy)
_CHOSEN = {
    *("labels", "labels_from", "classes", "out", "artifacts", "keep_test", "resume", "force", "as_json"),
    *("to", "port", "identity", "options"),
}
"""Options of these commands that adapt chooses itself or has once, and those for another machine."""

_IN_HELP = (("--labels-from", "DATA"), ("val/ or test/ of DATA", "val/ of DATA"))
"""What the help of such an option says, and what it says here."""

_TYPED = "edgetl.typed"
"""Where the command's context keeps options as they were typed, by name."""


class _Adapt(click.Command):
    """A command with the options of other commands, under their names in its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = self.make_parser(ctx).parse_args(list(args))[0]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        sections = []
        for step in _STEPS:
            names = {param.name for param in step.params} - _CHOSEN
            own = [param for param in left if param.name in names]
            own.sort(key=lambda param: getattr(param, "group", "") == MACHINE)  # what most users leave alone comes last
            sections.append((f"Options of {step.name}", own))
            left = [param for param in left if param.name not in names]
        for title, options in (("Options", left), *sections):
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])


def _options_of_steps() -> Iterator[click.Option]:
    """Each option of the commands that this one stands for, once."""
    found = {}
    for step in _STEPS:
        options = (param for param in step.params if isinstance(param, click.Option) and param.name not in _CHOSEN)
        found.update({option.name: option for option in options if option.name not in found})
    for name, option in found.items():
        here = copy.copy(option)
        here.help = option.help or ""
        for there, text in _IN_HELP:
            here.help = here.help.replace(there, text)
        if name == "task":
            here.show_default = False
            here.help += "  [default: what the labels of DATA are clearly of, else classification]"
        yield here


@click.command(cls=_Adapt)
@click.argument("source")
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="ONNX file to write.")
@click.option(
    "--test",
    type=click.Path(),
    metavar="DATA",
    help="Data to evaluate the file on at the end.  [default: test/ of DATA, which is left alone until then]",
)
@click.option(
    "--resume", is_flag=True, help="Continue after an interruption, with the result of an uninterrupted call."
)
@click.option("--force", is_flag=True, help="Start anew: replace the file at --out and the folder beside it.")
@json_option
def adapt(
    source: str,
    data: str,
    out: str,
    test: str | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Prepare SOURCE, fine-tune it on DATA, deploy and evaluate it, all on one machine.

    SOURCE is as in edgetl prepare (which needs PyTorch), or a prepared directory. DATA name the labels. The folder
    FILE.edgetl beside FILE.onnx keeps what the steps make. A second call with more data computes only what is new.
    """
    ctx = click.get_current_context()
    if resume and force:
        raise click.UsageError("--resume goes on and --force begins anew: give one of them.")
    given = {name: options[name] for name in options if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    arguments = as_arguments(given)
    with reporting(as_json, interrupted=lambda display: how_to_resume(out, display)) as display:
        import edgetl
        from edgetl.cli import outline
        from edgetl.cli.console import table

        result = edgetl.adapt(
            source, data, out=out, test=test, resume=resume, force=force, on_event=display, **arguments
        )
    commands = list(_commands(result, source, data, test, ctx.meta[_TYPED]))
    finish(
        as_json,
        {**vars(result), "commands": commands},
        f"{result.model} is ready: {result.deployed.size_mb:.1f} MB, {result.deployed.precision}, in "
        f"{result.seconds:.0f} s and {result.peak_rss_mb:.0f} MB",
        *(f"  {line}" for line in table(*_figures(result))),
        *_measured_on(result),
        *(outline.per_label(result.evaluated.per_label) if result.evaluated else ()),
        f"the report of the training: {result.report}",
        "the same, step by step:",
        *(f"  {each}" for each in commands),
        f"next: {command('predict', result.model, 'INPUT')}",
    )


# behind the command's own, in the order of the steps
adapt.params.extend(_options_of_steps())


def _figures(result: Adaptation) -> tuple[list[str], list[list[str]]]:
    """Heads and rows for `console.table`: a row for each figure, of the test and of the validation."""
    columns: dict[str, dict[str, float | None]] = {}
    if result.evaluated is not None:
        columns["test"] = {**result.evaluated.figures, "loss": result.evaluated.loss}
    if result.validation:
        columns["validation"] = result.validation
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [
        [called(name), *(shown(name, column.get(name)) for column in columns.values())]
        for name in names
        if any(column.get(name) is not None for column in columns.values())
    ]
    return ["", *(f">{title}" for title in columns)], rows


def _measured_on(result: Adaptation) -> Iterator[str]:
    """Say what the figures were measured on."""
    trained, tested = result.finetuned, result.evaluated
    if tested is not None:
        left_out = f", {len(tested.rejected)} left out" if tested.rejected else ""
        yield (
            f"  test: {tested.samples} samples of {tested.data}{left_out}; {tested.ms_per_image:.1f} ms each with "
            f"{tested.threads} threads"
        )
    if trained.val_samples:
        total = f", then on all {trained.train_samples + trained.val_samples} for deploying" if trained.refit else ""
        yield f"  validation: {trained.val_samples} samples; trained on {trained.train_samples} others{total}"
    else:
        yield f"  trained on {trained.train_samples} samples, without validation"
    if result.deployed.precision != "float32" or result.deployed.backbone_precision != "float32":
        yield f"  {verified(result.deployed)}"
    if tested is None:
        seen = "; the validation samples also chose the best epoch" if trained.val_samples else ""
        yield f"  no test: DATA have no part test, and --test names none{seen}"


def _commands(result: Adaptation, source: str, data: str, test: str | None, typed: dict[str, Any]) -> Iterator[str]:
    """The single commands that gave this result."""
    if result.artifacts != source:
        task = ["--task", result.finetuned.task]
        inferred = [] if "task" in typed or result.finetuned.task == "classification" else task
        own = [source, "--labels-from", data, "--out", result.artifacts]
        yield _command(prepare, [*own, *inferred], typed)
    keep = ["--keep-test"] if test is None and result.evaluated is not None else []
    yield _command(finetune, [result.artifacts, data, "--out", result.run, *keep], typed)
    yield _command(deploy, [result.run, "--out", result.model], typed)
    if result.evaluated is not None:
        yield _command(evaluate, [result.model, data if test is None else test], typed)


def _command(step: click.Command, own: list[str], typed: dict[str, Any]) -> str:
    """A command with its own arguments, and those options that it shares with what was typed."""
    words = [str(step.name), *own]
    for param in step.params:
        if not isinstance(param, click.Option) or param.name in _CHOSEN or typed.get(str(param.name)) is None:
            continue
        value = typed[str(param.name)]
        if param.is_flag:
            words.append(param.opts[0] if value else param.secondary_opts[0])
        else:
            words += [word for each in (value if param.multiple else [value]) for word in (param.opts[0], str(each))]
    return command(*words)
