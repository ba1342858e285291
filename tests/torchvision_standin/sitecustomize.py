"""Lets torchvision's CUDA wheel import beside a CPU build of torch; for tests and benchmarks here only.

Put this folder on PYTHONPATH. When torchvision is first imported, the operators whose schemas its
compiled part would have registered are declared without an implementation; classifiers use none of
them. Where torch and torchvision match, nothing is declared.
"""

import importlib.abc
import importlib.machinery
import re
import sys
from pathlib import Path

_DECLARED = []


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            _declare(Path(spec.origin).parent)
        return spec


def _declare(package: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        return
    source = (package / "_meta_registrations.py").read_text(encoding="utf-8")
    names = re.findall(r'(?:register_fake\("torchvision::|register_meta\(")(\w+)"', source)
    library = torch.library.Library("torchvision", "DEF")
    for name in names:
        library.define(f"{name}(Tensor x) -> Tensor")
    _DECLARED.append(library)


sys.meta_path.insert(0, _Finder())
