"""edgetl: transfer learning on the edge, from a pretrained network to one ONNX file.

Three functions do the work, and the commands of the same names call them:
`prepare` (workstation, needs torch), `finetune` and `deploy` (device, no torch). `adapt` calls them all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name → module; imported when first used, so that `import edgetl` costs nothing
_EXPORTS = {
    "adapt": "edgetl.adaptation",
    "prepare": "edgetl.preparation",
    "finetune": "edgetl.train",
    "plan": "edgetl.planning",
    "deploy": "edgetl.deployment",
    "evaluate": "edgetl.deployed",
    "predict": "edgetl.deployed",
    "benchmark": "edgetl.benchmarking",
    "describe": "edgetl.inspection",
    "verify": "edgetl.verification",
    "write_report": "edgetl.report",
    "compare_runs": "edgetl.runs",
    "DeployedModel": "edgetl.deployed",
    "EdgetlError": "edgetl.errors",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from edgetl.adaptation import adapt as adapt
    from edgetl.benchmarking import benchmark as benchmark
    from edgetl.deployed import DeployedModel as DeployedModel
    from edgetl.deployed import evaluate as evaluate
    from edgetl.deployed import predict as predict
    from edgetl.deployment import deploy as deploy
    from edgetl.errors import EdgetlError as EdgetlError
    from edgetl.inspection import describe as describe
    from edgetl.planning import plan as plan
    from edgetl.preparation import prepare as prepare
    from edgetl.report import write_report as write_report
    from edgetl.runs import compare_runs as compare_runs
    from edgetl.train import finetune as finetune
    from edgetl.verification import verify as verify


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
