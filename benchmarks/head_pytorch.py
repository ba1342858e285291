"""Competitors "pytorch" and "pytorch-cached" of finetune_head.py: `head_pytorch.py NAME JOB`.

Both keep the backbone in evaluation mode under `no_grad` and train a linear head with AdamW.
"""

from __future__ import annotations

import sys
from typing import Any

import timm
import torch
from head_job import Job, report_accuracy, report_trained
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from edgetl.runtime.process import available_cores


def main() -> None:
    name, job = sys.argv[1], Job.load(sys.argv[2])
    torch.manual_seed(job.seed)
    torch.set_num_threads(available_cores())
    backbone = load_network(job)
    backbone.reset_classifier(0)
    pictures = picture_loader(job, job.train, shuffle=name == "pytorch")
    head = nn.Linear(backbone.num_features, len(pictures.dataset.classes))
    train = {"pytorch": train_on_pictures, "pytorch-cached": train_on_cached_features}[name]
    train(job, backbone, head, pictures)
    report_trained()
    report_accuracy(*count_correct(backbone, head, picture_loader(job, job.test, shuffle=False)))


def load_network(job: Job) -> Any:
    """Return the pretrained network in evaluation mode."""
    network = timm.create_model(job.network, **job.model_args)
    network.load_state_dict(load_file(job.weights))
    return network.eval()


def picture_loader(job: Job, folder: str, *, shuffle: bool) -> Any:
    """Return the usual pipeline: a folder of pictures, Pillow's resizing, batches."""
    spec = job.preprocessing()
    assert spec.resize == "crop", "what timm's configuration of this network says"
    transform = transforms.Compose(
        [
            transforms.Resize(spec.resize_size, transforms.InterpolationMode(spec.interpolation)),
            transforms.CenterCrop((spec.height, spec.width)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    return DataLoader(ImageFolder(folder, transform), batch_size=job.batch_size, shuffle=shuffle)


def train_on_pictures(job: Job, backbone: nn.Module, head: nn.Linear, pictures: Any) -> None:
    """As PyTorch's examples do it: every epoch reads every picture and runs the whole network."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=job.lr)
    for _ in range(job.epochs):
        for batch, targets in pictures:
            with torch.no_grad():
                features = backbone(batch)
            train_step(head, optimizer, features, targets)


def train_on_cached_features(job: Job, backbone: nn.Module, head: nn.Linear, pictures: Any) -> None:
    """Run the backbone once per picture, keep the features in memory, train on them.

    The features go into tensors made beforehand: a list of batches, kept between the backbone's
    large buffers, holds on to up to twice the memory.
    """
    count, done = len(pictures.dataset), 0
    features = torch.empty(count, head.in_features)
    targets = torch.empty(count, dtype=torch.int64)
    with torch.no_grad():
        for batch, labels in pictures:
            rows = slice(done, done + len(labels))
            features[rows], targets[rows] = backbone(batch), labels
            done += len(labels)
    optimizer = torch.optim.AdamW(head.parameters(), lr=job.lr)
    for _ in range(job.epochs):
        for chosen in torch.randperm(count).split(job.batch_size):
            train_step(head, optimizer, features[chosen], targets[chosen])


def train_step(head: nn.Linear, optimizer: torch.optim.Optimizer, features: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(head(features), targets).backward()
    optimizer.step()


@torch.no_grad()
def count_correct(backbone: nn.Module, head: nn.Linear, pictures: Any) -> tuple[int, int]:
    """Return how many pictures are recognised, and of how many."""
    correct = sum(int((head(backbone(batch)).argmax(1) == targets).sum()) for batch, targets in pictures)
    return correct, len(pictures.dataset)


if __name__ == "__main__":
    main()
