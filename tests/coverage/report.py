"""Write docs/coverage.md's tables from what `EDGETL_COVERAGE=FILE pytest tests/coverage -m ""` collected.

python tests/coverage/report.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "coverage.md"
BEGIN, END = "<!-- begin: generated -->", "<!-- end: generated -->"
POLICIES = ("head", "last:1", "all")


def main(collected: Path) -> None:
    cells: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in collected.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cells.setdefault((row["library"], row["name"], row["size"]), {})[row["policy"]] = row
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCS.write_text(before + BEGIN + "\n\n" + table(cells) + "\n\n" + END + after, encoding="utf-8")


def table(cells: dict[tuple[str, str, int], dict[str, Any]]) -> str:
    good = sum("error" not in row for found in cells.values() for row in found.values())
    total = sum(len(found) for found in cells.values())
    lines = [
        f"{len(cells)} architectures, {good} of {total} cells proven.",
        "",
        "| library | architecture | px | parameters | " + " | ".join(POLICIES) + " |",
        "|---|---|---|---|" + "---|" * len(POLICIES),
    ]
    for (library, name, size), found in cells.items():
        some = next((row for row in found.values() if "error" not in row), None)
        count = f"{(some['trainable'] + some['frozen']) / 1e6:.2f} M" if some else ""
        columns = " | ".join(cell(found.get(policy)) for policy in POLICIES)
        lines.append(f"| {library} | {name} | {size} | {count} | {columns} |")
    return "\n".join(lines)


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run"
    if "error" in row:
        return row["error"].replace("|", "\\|").replace("\n", " ")[:200]
    return f"{row['trainable'] / 1e6:.2f} M, slope {row['slope_error']:.1e}, logits {row['logits_error']:.0e}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
