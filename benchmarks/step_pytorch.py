"""Competitor "pytorch" of train_step.py: `step_pytorch.py JOB`.

The same parameters train as in edgetl's artifacts, with AdamW; the network is in training mode but
for batch normalisation, whose statistics are frozen. Every step runs the whole network on pictures;
autograd records nothing before the first parameter that trains.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from step_job import CLASSES, NETWORKS, Job, report
from torch import nn

from edgetl.artifacts import MANIFEST
from edgetl.runtime.process import peak_rss_mb


def main() -> None:
    job = Job.load(sys.argv[1])
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    baseline = peak_rss_mb()
    network = timm.create_model(NETWORKS[job.network])
    network.load_state_dict(load_file(job.weights))
    network.reset_classifier(CLASSES)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    manifest = json.loads((Path(job.artifacts) / MANIFEST).read_text(encoding="utf-8"))
    trainable = {spec["name"] for spec in manifest["trainable"]}
    assert trainable <= {name for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trainable)
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=1e-4)
    pictures = torch.randn(job.batch_size, 3, 224, 224)
    targets = torch.randint(CLASSES, (job.batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pictures), targets).backward()
        optimizer.step()

    report(job, step, baseline_mb=baseline)


if __name__ == "__main__":
    main()
