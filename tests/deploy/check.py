"""Compare what every runtime answered with what edgetl computed.

    python check.py CASES RESULTS NAME...

For each NAME, RESULTS holds `NAME.json`, what it answered; or `NAME.skipped`, why it was not tried; or
neither, which is a failure. Exit status: 0 all agree, 77 all were skipped, 1 everything else.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """What became of one comparison, and what was wrong."""

    what: str
    figures: str
    problems: tuple[str, ...]


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def compare(answer: dict[str, Any] | None, case: dict[str, Any]) -> dict[str, float]:
    """Return the largest absolute difference of each output.

    Raises:
        ValueError: an output is missing or another one is there, or has another type or shape, or a value
            that is not finite.
    """
    expected = {output["name"]: output for output in case["outputs"]}
    if answer is None or answer.keys() != expected.keys():
        raise ValueError(f"{case['name']}: outputs {sorted(answer or ())} instead of {sorted(expected)}")
    differences = {}
    for name, output in expected.items():
        found, kinds = answer[name], [f"{item['dtype']} {item['shape']}" for item in (answer[name], output)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{case['name']}: {name} is {kinds[0]} instead of {kinds[1]}")
        # JavaScript's JSON writes null for what is not finite
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in found["values"]):
            raise ValueError(f"{case['name']}: {name} is {found['values']}")
        pairs = zip(found["values"], output["values"], strict=True)
        differences[name] = max(abs(one - other) for one, other in pairs)
    return differences


def row(what: str, answers: dict[str, Any], cases: list[dict[str, Any]], tolerances: dict[str, float]) -> Row:
    """Compare the answers to `cases`, by the case's name."""
    largest, problems = dict.fromkeys(tolerances, 0.0), []
    for case in cases:
        try:
            differences = compare(answers.get(case["name"]), case)
        except ValueError as error:
            problems.append(str(error))
            continue
        for name, difference in differences.items():
            largest[name] = max(largest[name], difference)
            if difference > tolerances[name]:
                problems.append(f"{case['name']}: {name} differ by {difference:.1e}")
    figures = ", ".join(f"{name} differ by {largest[name]:.1e} of {tolerances[name]:.0e}" for name in tolerances)
    return Row(what, f"{len(cases)} case{'s' * (len(cases) > 1)}, {figures}", tuple(problems))


def rows(expected: dict[str, Any], result: dict[str, Any]) -> Iterator[Row]:
    """Compare one runtime's answers, model by model; and what the page showed, if it is the page's."""
    for model in expected["models"]:
        found = result["models"].get(model["file"], {"error": "was not asked"})
        if "error" in found:
            yield Row(model["file"], "no answers", (found["error"],))
            continue
        compared = row(model["file"], found["answers"], model["cases"], model["tolerances"])
        # JavaScript has no access to the metadata
        if "labels" in found and found["labels"] != model["labels"]:
            compared = Row(compared.what, compared.figures, (*compared.problems, f"labels {found['labels']}"))
        yield compared
    if (page := result.get("page")) is not None:
        model, picture = expected["models"][0], expected["picture"]
        cases = [case for case in model["cases"] if case["name"] == picture["case"]]
        shown = row("page", {picture["case"]: page["outputs"]}, cases, model["tolerances"])
        label = f"shows {page['label']!r}"
        wrong = () if page["label"] == picture["label"] else (f"{label} instead of {picture['label']!r}",)
        yield Row(shown.what, f"{label}, {shown.figures}", (*shown.problems, *wrong))


def main(cases: Path, results: Path, names: list[str]) -> int:
    """Print a line for each comparison, and return the exit status."""
    expected = read(cases / "cases.json")
    print(f"expected: {expected['made_by']}")
    passed = failed = skipped = 0
    for name in names:
        file, reason = results / f"{name}.json", results / f"{name}.skipped"
        if reason.exists():
            print(f"skipped: {name}: {reason.read_text().strip()}")
            skipped += 1
        elif not file.exists():
            print(f"failed: {name} gave no result, see above")
            failed += 1
        else:
            result = read(file)
            for compared in rows(expected, result):
                passed, failed = passed + (not compared.problems), failed + bool(compared.problems)
                word = "failed" if compared.problems else "passed"
                print(f"{word}: {result['runtime']} ({result['on']}), {compared.what}: {compared.figures}")
                for problem in compared.problems:
                    print(f"    {problem}")
    print(f"{passed} passed, {failed} failed{f', {skipped} skipped' * bool(skipped)}")
    if failed or not names:
        return 1
    return 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
