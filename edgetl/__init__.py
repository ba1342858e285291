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
    "prepare": "edgetl.preparation.prepare",
    "finetune": "edgetl.training.finetune",
    "plan": "edgetl.device.planning",
    "deploy": "edgetl.deployment.deploy",
    "evaluate": "edgetl.deployment.deployed",
    "predict": "edgetl.deployment.deployed",
    "benchmark": "edgetl.deployment.benchmarking",
    "describe": "edgetl.deployment.inspection",
    "verify": "edgetl.deployment.verification",
    "write_report": "edgetl.runs.report.write",
    "compare_runs": "edgetl.runs.compare",
    "push": "edgetl.remote.push",
    "pull": "edgetl.remote.pull",
    "rollback": "edgetl.remote.rollback",
    "examine": "edgetl.device.doctor",
    "DeployedModel": "edgetl.deployment.deployed",
    "EdgetlError": "edgetl.errors",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from edgetl.adaptation import adapt as adapt
    from edgetl.deployment.benchmarking import benchmark as benchmark
    from edgetl.deployment.deploy import deploy as deploy
    from edgetl.deployment.deployed import DeployedModel as DeployedModel
    from edgetl.deployment.deployed import evaluate as evaluate
    from edgetl.deployment.deployed import predict as predict
    from edgetl.deployment.inspection import describe as describe
    from edgetl.deployment.verification import verify as verify
    from edgetl.device.doctor import examine as examine
    from edgetl.device.planning import plan as plan
    from edgetl.errors import EdgetlError as EdgetlError
    from edgetl.preparation.prepare import prepare as prepare
    from edgetl.remote.pull import pull as pull
    from edgetl.remote.push import push as push
    from edgetl.remote.rollback import rollback as rollback
    from edgetl.runs.compare import compare_runs as compare_runs
    from edgetl.runs.report.write import write_report as write_report
    from edgetl.training.finetune import finetune as finetune


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
