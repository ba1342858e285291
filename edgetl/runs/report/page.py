"""The page: findings to one self-contained HTML text, without script and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import Any

from edgetl import __version__
from edgetl.files import schema
from edgetl.runs.compare import number
from edgetl.runs.report import svg, text
from edgetl.runs.report.charts import MATRIX_CLASSES, curves
from edgetl.runs.report.findings import Confusion, Findings, Measured, Mistake, thumbnail
from edgetl.runs.report.text import escaped, figure_text, named, titled
from edgetl.runs.run import EpochResult
from edgetl.tasks import metrics
from edgetl.tasks.figures import FIGURES
from edgetl.tasks.targets import OUTPUTS_ARE

_PAIRS = 15
_LONG_PAIRS = 40
_WORST_CLASSES = 20
_THUMBNAIL = 224
_EPOCH_ROWS = 500
_LEFT_OUT = 100
_MANY = 14
_DEEP = 0.88
_WORDS = {
    "lr": "learning rate",
}
_TOLD_ELSEWHERE = (
    *("edgetl_version", "artifacts", "artifacts_sha256", "data", "val", "val_fraction", "labels"),
    *("engine", "provider", "provider_options"),
)
_CPU = "CPUExecutionProvider"

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="edgetl $version">
<title>$title</title>
<style>
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def page(findings: Findings) -> tuple[str, int]:
    """Return the page and how many pictures it shows."""
    pictures = _pictures(findings)
    body = [
        _header(findings),
        "<main>",
        _tiles(findings),
        _curves(findings),
        *_measured(findings),
        pictures[0],
        _facts(findings),
        _left_out(findings),
        "</main>",
        _footer(findings),
    ]
    style = resources.files("edgetl.runs.report").joinpath("page.css").read_text(encoding="utf-8")
    reached = findings.best.val_figures.get(findings.lead) if findings.best else None
    title = f"{findings.name} · {figure_text(findings.lead, reached)}" if reached is not None else findings.name
    filled = _PAGE.substitute(
        version=__version__, title=escaped(title), style=style, body="\n".join(part for part in body if part)
    )
    return filled, pictures[1]


def _header(findings: Findings) -> str:
    origin, args = findings.origin, findings.args
    trained = f", training {_policy(origin.policy)}," if origin.policy else ""
    lines = [
        f"<header><h1>{escaped(findings.name)}</h1>",
        f'<p class="lead">{text.breakable(origin.model)}{escaped(trained)} '
        f"on {len(args.labels):,} {OUTPUTS_ARE[args.task]} from {text.breakable(args.data)}</p>",
    ]
    if not findings.finished:
        done = findings.results[-1].epoch if findings.results else 0
        lines.append(
            f'<p class="notice">This run is not finished: {done} of {args.epochs} epochs are done. '
            "Repeat its <code>edgetl finetune</code> command with <code>--resume</code> to continue it; "
            "what it gets wrong is measured at its end.</p>"
        )
    told = (findings.metrics or {}).get("concerns") if findings.finished else None
    for sentence in told if isinstance(told, list) else []:
        lines.append(f'<p class="notice">{escaped(_sentence(str(sentence)))}</p>')
    return "\n".join(lines) + "</header>"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _tiles(findings: Findings) -> str:
    best = findings.best
    others = [name for name in best.val_figures if name != findings.lead] if best else []
    tiles = [_figure_tile(findings, name) for name in (findings.lead, *others)]
    loss = best.val_loss if best and best.val_loss is not None else best.train_loss if best else None
    kind = "Validation" if best and best.val_loss is not None else "Training"
    last = findings.results[-1].epoch if findings.results else 0
    tiles.append(_tile(f"{kind} loss", text.number(loss), f"epoch {best.epoch} of {last}" if best else "no epoch yet"))
    if findings.finished:
        peak, learning = (number(findings.metrics, name) for name in ("peak_rss_mb", "training_seconds"))
        tiles.append(
            _tile(
                "Time",
                text.duration(number(findings.metrics, "seconds")),
                f"{text.duration(learning)} of it training; {text.megabytes(peak)} of memory at most",
            )
        )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _figure_tile(findings: Findings, name: str) -> str:
    """A figure of the best epoch; what it was at the start is told of the one that leads."""
    best, before, title = findings.best, findings.before, titled(name)
    if best is None or best.val_loss is None:
        why = "no epoch is finished yet" if best is None else f"no {findings.things} were kept for validation"
        return _tile(title, text.MISSING, f"{why}; <code>edgetl evaluate</code> measures a deployed model")
    value = figure_text(name, best.val_figures.get(name))
    small = f"in epoch {best.epoch}, on {text.count(findings.val_count)} validation {findings.things}"
    if findings.measured and name in _EXPLAINED:
        small = _EXPLAINED[name](findings.measured.summary, findings.things)
    if name == findings.lead:
        if best.epoch == 0 and len(findings.results) > 1:
            small = f"at the start, which no epoch bettered: {small}"
        elif best.epoch > 0 and before is not None and before.val_figures.get(name) is not None:
            value = f'<span class="from">{figure_text(name, before.val_figures[name])} at the start →</span> {value}'
    return _tile(title, value, small)


def _accuracy_explained(summary: metrics.Classification, things: str) -> str:
    low, high = metrics.wilson_interval(summary.correct, summary.samples)
    share = max(item.support for item in summary.classes) / summary.samples
    return (
        f"{text.count(summary.correct)} of {text.count(summary.samples)} validation {things}, so "
        f"{low:.0%} to {high:.0%} of such {things} (95% confidence); "
        f"always naming the commonest class would reach {share:.0%}"
    )


def _macro_f1_explained(summary: metrics.Classification, things: str) -> str:
    return (
        f"recall {text.percent(summary.macro_recall)}, precision {text.percent(summary.macro_precision)}, "
        "each class counting alike"
    )


_EXPLAINED = {"accuracy": _accuracy_explained, "macro_f1": _macro_f1_explained}


def _tile(title: str, figure: str, small: str) -> str:
    figure, small = f'<dd class="figure">{figure}</dd>', f'<dd class="small">{small}</dd>'
    return f'<div class="card"><dt>{escaped(title)}</dt>{figure}{small}</div>'


def _curves(findings: Findings) -> str:
    figures = [svg.figure(drawing) for drawing in curves(findings)]
    if not figures:
        return ""
    table = _epoch_table(findings.results, findings.best, findings.args.task)
    return (
        f'<section><h2>Curves</h2><div class="{"two" if len(figures) > 1 else "single"}">{"".join(figures)}</div>'
        f"{_details('Epoch by epoch', table)}</section>"
    )


def _epoch_table(results: Sequence[EpochResult], best: EpochResult | None, task: str) -> str:
    names = FIGURES[task]
    rows = (
        [
            f"{result.epoch}{' (best)' if result == best else ''}",
            text.number(result.train_loss),
            text.number(result.val_loss),
            *(figure_text(name, result.val_figures.get(name)) for name in names),
            text.duration(result.seconds),
        ]
        for result in results[-_EPOCH_ROWS:]
    )
    heads = ("Epoch", "Training loss", "Validation loss", *map(titled, names), "Time")
    cut = f"The last {_EPOCH_ROWS}; results.csv has all" if len(results) > _EPOCH_ROWS else ""
    return _table(heads, rows, numbers=range(1, len(heads)), caption=cut)


def _measured(findings: Findings) -> Iterator[str]:
    measured, labels, things = findings.measured, findings.args.labels, findings.things
    if measured is None:
        return
    yield (
        f'<section><h2>Classes</h2><p class="lead">Of the {things} of a class, <em>recall</em> is the share that was '
        f"recognised; of the {things} that were said to be of that class, <em>precision</em> is the share that were. "
        f"<em>Support</em> is the number of its {things}.</p>"
    )
    everything = _class_table(measured, labels, range(len(labels)))
    if len(labels) <= MATRIX_CLASSES:
        yield f'<div class="card">{everything}</div>'
    else:
        items = measured.summary.classes
        occurring = (i for i, item in enumerate(items) if item.support)
        worst = sorted(occurring, key=lambda i: (items[i].f1 or 0.0, i))[:_WORST_CLASSES]
        yield f'<div class="card">{_class_table(measured, labels, worst, "The worst, by F1")}</div>'
        yield _details(f"All {len(labels):,} classes", everything)
    yield "</section>"
    yield _confusion(measured, labels, things)


def _class_table(measured: Measured, labels: Sequence[str], order: Sequence[int], caption: str = "") -> str:
    summary = measured.summary
    rows = (
        [
            named(labels[i]),
            text.percent(item.precision),
            text.percent(item.recall),
            _meter(item.recall),
            text.percent(item.f1),
            text.count(item.support),
        ]
        for i, item in ((i, summary.classes[i]) for i in order)
    )
    mean = [
        "Mean",
        text.percent(summary.macro_precision),
        text.percent(summary.macro_recall),
        "",
        text.percent(summary.macro_f1),
        text.count(summary.samples),
    ]
    heads = ("Class", "Precision", "Recall", "", "F1", "Support")
    return _table(heads, rows, numbers=(1, 2, 4, 5), bars=(3,), foot=mean, caption=caption, style="classes")


def _meter(share: float | None) -> str:
    return f'<span class="meter"><i style="width:{100 * (share or 0):.1f}%"></i></span>'


def _confusion(measured: Measured, labels: Sequence[str], things: str) -> str:
    fits = len(labels) <= MATRIX_CLASSES
    pairs = measured.confusions[: _PAIRS if fits else _LONG_PAIRS]
    lead = (
        "The stronger a colour, the larger the share of its row."
        if fits
        else f"A matrix is drawn for up to {MATRIX_CLASSES} classes; <code>validation.npz</code> has every prediction."
    )
    matrix = f'<div class="card scroll">{_matrix(measured, labels)}</div>' if fits else ""
    # of two classes the matrix says it all
    listed = len(labels) > 2 and pairs
    table = f'<div class="card">{_pairs(pairs, len(measured.confusions), labels, things)}</div>' if listed else ""
    grid = "matrix-and-pairs" if matrix and table and len(labels) <= _MANY else "stacked"
    title = "Confusion matrix" if fits else "Confused classes"
    return f'<section><h2>{title}</h2><p class="lead">{lead}</p><div class="{grid}">{matrix}{table}</div></section>'


def _matrix(measured: Measured, labels: Sequence[str]) -> str:
    turned = len(labels) > 4 or max(map(len, labels)) > 12
    head = "".join(
        f'<th scope="col"{" class=turned" if turned else ""}><span>{named(label)}</span></th>' for label in labels
    )
    rows = []
    assert measured.matrix is not None, "of so few classes there is one"
    for truth, counts in enumerate(measured.matrix.tolist()):
        support = sum(counts)
        cells = "".join(_cell(value, support, hit=truth == said) for said, value in enumerate(counts))
        rows.append(f'<tr><th scope="row">{named(labels[truth])}</th>{cells}</tr>')
    return (
        f'<table class="matrix{" many" if len(labels) > _MANY else ""}">'
        f'<thead><tr><th scope="col" class="axis-name">true ↓ predicted →</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(value: int, support: int, *, hit: bool) -> str:
    if value == 0:
        return "<td>0</td>"
    share = value / support
    # the root keeps a few mistakes among many pictures visible
    strength = share if hit else share**0.5
    deep = " deep" if strength > _DEEP else ""
    return f'<td class="{"hit" if hit else "miss"}{deep}" style="--v:{max(strength, 0.1):.2f}">{value}</td>'


def _pairs(pairs: Sequence[Confusion], total: int, labels: Sequence[str], things: str) -> str:
    rows = (
        [named(labels[pair.truth]), named(labels[pair.predicted]), text.count(pair.count), text.percent(pair.share)]
        for pair in pairs
    )
    caption = "Confused most often" + (f" ({len(pairs)} of {total:,} pairs)" if total > len(pairs) else "")
    return _table(("True", "Predicted", things.capitalize(), "Of its class"), rows, numbers=(2, 3), caption=caption)


def _pictures(findings: Findings) -> tuple[str, int]:
    measured = findings.measured
    if measured is None:
        return "", 0
    heading = "<section><h2>Most wrong</h2>"
    if not measured.mistakes:
        return f'{heading}<p class="lead">None: all validation {findings.things} were recognised.</p></section>', 0
    shown, worst = 0, measured.mistakes
    items = []
    for mistake in worst:
        shows = findings.args.modality == "image"
        uri, reason = thumbnail(mistake, size=_THUMBNAIL, pixel_range=findings.args.pixel_range) if shows else ("", "")
        shown += bool(uri)
        items.append(_picture(mistake, uri, reason, findings.args.labels))
    total = text.count(measured.wrong)
    which = f"The {len(worst)} of {total}" if measured.wrong > len(worst) else f"All {total}"
    lead = (
        f"{which} validation {findings.things} that were not recognised, the least probable truth first: "
        "what the model said, and what is true. Look for wrong labels among them."
    )
    return f'{heading}<p class="lead">{lead}</p><ul class="pictures">{"".join(items)}</ul></section>', shown


def _picture(mistake: Mistake, uri: str, reason: str, labels: Sequence[str]) -> str:
    truth, said = labels[mistake.truth], labels[mistake.predicted]
    # such small pictures are encoded as PNG
    tiny = ' class="tiny"' if uri.startswith("data:image/png") else ""
    alt = escaped(f"{truth}, taken for {said}")
    gone = f'<div class="gone">The picture {escaped(reason)}</div>' if reason else ""
    picture = f'<img{tiny} src="{uri}" alt="{alt}">' if uri else gone
    return (
        f"<li>{picture}<dl>{_guess('said', said, mistake.predicted_probability)}"
        f"{_guess('is', truth, mistake.truth_probability)}</dl>"
        f'<p class="file" title="{escaped(mistake.path)}"><bdi>{escaped(PurePath(mistake.path).name)}</bdi></p></li>'
    )


def _guess(word: str, label: str, probability: float) -> str:
    share = f"<span>{text.short_percent(probability)}</span>"
    return f'<div class="{word}"><dt>{word}</dt><dd>{named(label, long=14)}{share}</dd></div>'


def _facts(findings: Findings) -> str:
    cards = (
        ("Settings", _settings(findings)),
        ("Sizes and times", _sizes(findings)),
        ("Engine and machine", _machine(findings)),
    )
    lists = "".join(f'<div class="card"><h3>{title}</h3>{_list(facts)}</div>' for title, facts in cards)
    return f'<section><h2>The run</h2><div class="three">{lists}</div></section>'


def _settings(findings: Findings) -> Iterator[tuple[str, str]]:
    args, origin = findings.args, findings.origin
    yield "model", origin.model
    if origin.policy:
        yield "trains", _policy(origin.policy)
    if origin.model != args.artifacts:
        yield "prepared in", args.artifacts
    yield "data", args.data
    if findings.val_folder:
        yield "validated on", findings.val_folder
    unused = {name for name in ("warmup", "label_smoothing") if not getattr(args, name)}
    unused |= set() if args.augment else {"views", "flip"}
    for name, value in schema.to_json(args).items():
        if name not in _TOLD_ELSEWHERE and name not in unused and value not in (None, {}, []):
            yield _WORDS.get(name, name.replace("_", " ")), _plain(value)


def _sizes(findings: Findings) -> Iterator[tuple[str, str]]:
    origin, figures = findings.origin, findings.metrics
    if findings.train_count is not None:
        trained = text.count(findings.train_count)
        left_out = f", {text.count(len(_rejected(findings)))} left out" if figures else ""
        yield findings.things, f"{trained} to train, {text.count(findings.val_count)} to validate{left_out}"
    if origin.trainable_parameters is not None:
        counts = text.count(origin.trainable_parameters), text.count(origin.frozen_parameters)
        yield "parameters", f"{counts[0]} trained, {counts[1]} frozen"
        yield "network", text.megabytes(origin.network_mb)
    if findings.weights_mb is not None:
        yield "best weights", f"{text.megabytes(findings.weights_mb)}, with the optimizer's state"
    if figures:
        reused, computed = number(figures, "features_reused"), number(figures, "features_computed")
        yield "features", f"{text.count(computed)} computed, {text.count(reused)} from the cache"
        each = number(figures, "feature_ms_per_image")
        rate = "" if each is None else f", {each:.1f} ms each"
        yield "features took", text.duration(number(figures, "feature_seconds")) + rate
        yield "training took", text.duration(number(figures, "training_seconds"))
        yield "in all", text.duration(number(figures, "seconds"))
        yield "peak memory", text.megabytes(number(figures, "peak_rss_mb"))


def _machine(findings: Findings) -> Iterator[tuple[str, str]]:
    figures = findings.metrics or {}
    machine = figures.get("machine")
    yield "engine", str(figures.get("engine", findings.args.engine))
    yield "provider", findings.args.provider
    if findings.args.provider_options:
        yield "its options", _plain(findings.args.provider_options)
    yield from _placements(figures.get("placement"))
    yield "edgetl", findings.args.edgetl_version
    if not isinstance(machine, dict):
        return
    for name in ("onnxruntime", "python", "processor", "architecture", "cores"):
        if machine.get(name):
            yield name, str(machine[name])
    if (memory := number(machine, "memory_mb")) is not None:
        yield "memory", text.megabytes(memory)
    if machine.get("platform"):
        yield "system", str(machine["platform"])


def _placements(placement: Any) -> Iterator[tuple[str, str]]:
    """What ran where, in shares of the time, if any of it ran elsewhere than on the CPU."""
    shares = placement if isinstance(placement, dict) else {}
    if any(provider != _CPU for found in shares.values() for provider in found):
        for what, found in shares.items():
            if found:
                yield f"{what} ran on", ", ".join(f"{name} {text.percent(share)}" for name, share in found.items())


def _left_out(findings: Findings) -> str:
    rejected = _rejected(findings)
    if not rejected:
        return ""
    rows = ([f'<span class="path">{escaped(path)}</span>', escaped(reason)] for path, reason in rejected[:_LEFT_OUT])
    more = f"; the first {_LEFT_OUT}, metrics.json names them all" if len(rejected) > _LEFT_OUT else ""
    return _details(f"{len(rejected):,} left out{more}", _table(("File", "Why"), rows))


def _rejected(findings: Findings) -> list[tuple[str, str]]:
    listed = (findings.metrics or {}).get("rejected")
    return [(str(item[0]), str(item[1])) for item in listed] if isinstance(listed, list) else []


def _footer(findings: Findings) -> str:
    optimism = (
        f"The best epoch was chosen on the same validation {findings.things}, so its figures are a little kind; "
        "<code>edgetl evaluate</code> measures a deployed model on others. "
        if findings.measured
        else ""
    )
    return (
        f"<footer>{optimism}Written by edgetl {escaped(__version__)} from the files beside this page; "
        f"<code>edgetl report</code> writes it anew.</footer>"
    )


def _table(
    heads: Sequence[str],
    rows: Iterator[list[str]],
    *,
    numbers: Sequence[int] = (),
    bars: Sequence[int] = (),
    foot: Sequence[str] = (),
    caption: str = "",
    style: str = "",
) -> str:
    """A table of cells that are HTML already; the first column heads its row."""

    def kind(column: int) -> str:
        return ' class="n"' if column in numbers else ' class="bar"' if column in bars else ""

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        rest = "".join(f"<td{kind(i)}>{cell}</td>" for i, cell in enumerate(others, start=1))
        return f'<tr><th scope="row">{first}</th>{rest}</tr>'

    head = "".join(
        f'<th scope="col"{kind(i)}>{title}</th>' if title else f"<td{kind(i)}></td>" for i, title in enumerate(heads)
    )
    return (
        f'<div class="scroll"><table class="list {style}">{f"<caption>{escaped(caption)}</caption>" if caption else ""}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(line, rows))}</tbody>"
        f"{f'<tfoot>{line(foot)}</tfoot>' if foot else ''}</table></div>"
    )


def _details(summary: str, content: str) -> str:
    return f'<details><summary>{escaped(summary)}</summary><div class="card">{content}</div></details>'


def _list(facts: Iterator[tuple[str, str]]) -> str:
    lines = (f"<div><dt>{escaped(name)}</dt><dd>{text.breakable(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{"".join(lines)}</dl>'


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or text.MISSING
    if isinstance(value, dict):
        told = (f"{name.replace('_', ' ')} {_plain(item)}" for name, item in value.items() if item is not None)
        return "; ".join(told).removeprefix("name ")
    return text.MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _policy(policy: Sequence[str]) -> str:
    return ", ".join("the head" if item == "head" else item for item in policy)


__all__ = ["page"]
