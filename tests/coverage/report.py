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

Row = dict[str, Any]
Cells = dict[tuple[str, str, int], dict[str, dict[str, Row]]]
"""By network, policy and proof (`gradients`, `training`)."""


def main(collected: Path) -> None:
    cells: Cells = {}
    for line in collected.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        network = cells.setdefault((row["library"], row["name"], row["size"]), {})
        network.setdefault(row["policy"], {})[row["proof"]] = row
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCS.write_text(before + BEGIN + "\n\n" + table(cells) + "\n\n" + END + after, encoding="utf-8")


def table(cells: Cells) -> str:
    all_cells = [proofs for found in cells.values() for proofs in found.values()]
    good = sum(not row["problems"] for proofs in all_cells for row in proofs.values())
    rows = sum(len(proofs) for proofs in all_cells)
    lines = [
        f"{len(cells)} architectures, {len(all_cells)} cells, {good} of {rows} proofs succeeded.",
        "",
        "| library | architecture | px | parameters | " + " | ".join(POLICIES) + " | engines' gradients | 50 steps |",
        "|---|---|---|---|" + "---|" * len(POLICIES) + "---|---|",
    ]
    for (library, name, size), found in cells.items():
        some = next((row for row in (proof(found, p, "gradients") for p in POLICIES) if "trainable" in row), None)
        count = f"{(some['trainable'] + some['frozen']) / 1e6:.2f} M" if some else ""
        columns = [gradients(proof(found, policy, "gradients")) for policy in POLICIES]
        columns.append(" / ".join(number(proof(found, policy, "gradients"), "engines_error") for policy in POLICIES))
        columns.append(" / ".join(training(proof(found, policy, "training")) for policy in POLICIES))
        lines.append(f"| {library} | {name} | {size} | {count} | {' | '.join(columns)} |")
    return "\n".join(lines)


def proof(found: dict[str, dict[str, Row]], policy: str, name: str) -> Row:
    return found.get(policy, {}).get(name, {})


def gradients(row: Row) -> str:
    if "trainable" not in row:
        return problems(row)
    return f"{row['trainable'] / 1e6:.2f} M, slope {row['slope_error']:.1e}, logits {row['logits_error']:.0e}"


def training(row: Row) -> str:
    if "loss_error" not in row:
        return problems(row)
    rounding = f" (rounding {row['rounding']:.0e})" if row["rounding"] is not None else ""
    return number(row, "loss_error") + rounding


def number(row: Row, key: str) -> str:
    return f"{row[key]:.0e}" if key in row else "–"


def problems(row: Row) -> str:
    listed = " ".join(row.get("problems", ["not run"]))
    return listed.replace("|", "\\|").replace("\n", " ")[:200]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
