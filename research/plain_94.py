"""The published training of airbench94 in plain PyTorch: what ``to_94.py`` compares with.

Usage: python research/plain_94.py [--seed 0] [--dtype float32] [--epochs 8] [--train-images N]

Stock layers, eager, images in memory, as in the published code, moved to the device at hand;
nothing of cifarzoo is imported. Network, optimizer, rates and augmentation follow Jordan 2024
(arXiv:2404.00498; github.com/KellerJordan/cifar10-airbench, airbench94_muon.py). Prints one line of
JSON: accuracies on all test images, and seconds since the images were read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 2000
WHITEN_EPOCHS = 3  # epochs in which the bias of the first layer is trained
BIAS_RATE, HEAD_RATE, FILTER_RATE = 0.053, 0.67, 0.24
DECAY = 2e-6  # for each image of a batch
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)


def main() -> None:
    """Train once, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-images", type=int, default=50_000, help="the first N only")
    data = os.environ.get("CIFARZOO_DATA")
    parser.add_argument("--data", default=data, required=data is None, help="or $CIFARZOO_DATA")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    dtype = getattr(torch, arguments.dtype)
    images, labels = read(arguments.data, "train", arguments.train_images)
    test_images, test_labels = read(arguments.data, "test", 10_000)
    network = Network().to(DEVICE, dtype, memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    start = time.perf_counter()
    images = normalized(images, dtype)
    network.whiten_from(images[:5000])
    synchronize()
    prepared = time.perf_counter()
    train(network, images, labels, arguments.epochs)
    synchronize()
    trained = time.perf_counter()
    test_images = normalized(test_images, dtype)
    with_views = accuracy(network, test_images, test_labels, six_views)
    synchronize()
    end = time.perf_counter()
    found = {
        "accuracy": accuracy(network, test_images, test_labels, lambda net, x: net(x)),
        "accuracy_with_tta": with_views,
        "seconds": end - start,
        "preparation": prepared - start,
        "training": trained - prepared,
        "evaluation": end - trained,
    }
    print(json.dumps(found))


def read(folder: str, part: str, count: int) -> tuple[Tensor, Tensor]:
    """uint8 images (N, 3, 32, 32), channels last, and their labels (N,)."""
    data = torchvision.datasets.CIFAR10(folder, train=part == "train")
    images = torch.tensor(data.data[:count]).permute(0, 3, 1, 2).to(DEVICE)
    return images, torch.tensor(data.targets[:count], device=DEVICE)


def normalized(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images of the training set's mean and spread, channels last."""
    mean, std = (values.to(DEVICE, dtype) for values in (MEAN, STD))
    return (images.to(dtype) / 255 - mean) / std


class Group(nn.Sequential):
    """Two 3x3 convolutions that start as identities, the first pooled; no scale when normalized."""

    def __init__(self, inputs: int, outputs: int) -> None:
        first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        norms = [nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4) for _ in range(2)]
        for layer in (first, second):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
        for norm in norms:
            norm.weight.requires_grad = False
        pool = nn.MaxPool2d(2)
        super().__init__(first, pool, norms[0], nn.GELU(), second, norms[1], nn.GELU())


class Network(nn.Module):
    """Whitening layer, three groups, global maximum, one dense layer."""

    def __init__(self, widths: Sequence[int] = (64, 256, 256)) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        groups = (Group(a, b) for a, b in itertools.pairwise((24, *widths)))
        self.layers = nn.Sequential(nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x: Tensor, train_whiten_bias: bool = True) -> Tensor:
        """Logits (B, 10) of normalized images (B, 3, 32, 32)."""
        bias = self.whiten.bias if train_whiten_bias else self.whiten.bias.detach()
        x = self.layers(F.conv2d(x, self.whiten.weight, bias))
        logits: Tensor = self.head(x) / x.shape[1]
        return logits

    @torch.no_grad()
    def whiten_from(self, images: Tensor) -> None:
        """Scaled eigenvectors of the covariance of 2x2 patches, and their negatives."""
        patches = F.unfold(images.float(), 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.view(-1, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat((filters, -filters)))


def epochs_of(images: Tensor, labels: Tensor, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shifted by up to two pixels, mirrored in every second epoch, in a new order each time."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=DEVICE) < 0.5
    images = torch.where(mirrored, images.flip(-1), images)
    padded = F.pad(images, (2,) * 4, "reflect")
    for epoch in range(epochs):
        shifts = torch.randint(0, 5, (len(images), 2), device=DEVICE)
        for y in range(5):
            for x in range(5):
                chosen = (shifts == torch.tensor([y, x], device=DEVICE)).all(1)
                images[chosen] = padded[chosen, :, y : y + 32, x : x + 32]
        seen = images.flip(-1) if epoch % 2 else images
        order = torch.randperm(len(images), device=DEVICE)
        for batch in order.split(BATCH)[: len(images) // BATCH]:
            yield seen[batch], labels[batch]


def train(network: Network, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Muon for the filters, SGD for biases and head, rates that fall to zero in a straight line."""
    per_epoch = len(images) // BATCH
    total, whiten_total = epochs * per_epoch, WHITEN_EPOCHS * per_epoch
    trained = [p for p in network.parameters() if p.requires_grad]
    filters = [p for p in trained if p.ndim == 4]
    biases = [p for p in trained if p.ndim == 1 and p is not network.whiten.bias]
    groups = [
        {"params": [network.whiten.bias], "lr": BIAS_RATE, "length": whiten_total},
        {"params": biases, "lr": BIAS_RATE, "length": total},
        {"params": [network.head.weight], "lr": HEAD_RATE, "length": total},
    ]
    for group in groups:
        group.update(weight_decay=DECAY * BATCH / group["lr"], initial_lr=group["lr"])
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    muon = Muon(filters)
    network.train()
    for step, (inputs, targets) in enumerate(epochs_of(images, labels, epochs)):
        logits = network(inputs, train_whiten_bias=step < whiten_total)
        F.cross_entropy(logits, targets, label_smoothing=0.2, reduction="sum").backward()
        for group in sgd.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / group["length"])
        sgd.step()
        muon.step(FILTER_RATE * (1 - step / total))
        network.zero_grad(set_to_none=True)


class Muon:
    """Momentum, its steps made orthogonal; every filter bank kept at one norm."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.6) -> None:
        self.parameters, self.momentum = parameters, momentum
        self.averages = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of the parameters along their gradients."""
        for p, average in zip(self.parameters, self.averages, strict=True):
            average.mul_(self.momentum).add_(p.grad)
            direction = p.grad.add(average, alpha=self.momentum)
            p.mul_(len(p) ** 0.5 / p.norm())
            p.sub_(orthogonal(direction.flatten(1)).view_as(p), alpha=rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """Three Newton-Schulz iterations towards the nearest matrix with orthogonal rows."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


@torch.no_grad()
def accuracy(
    network: Network, images: Tensor, labels: Tensor, logits: Callable[[Network, Tensor], Tensor]
) -> float:
    """Fraction of the images that are classified correctly."""
    network.eval()
    found = torch.cat([logits(network, x).argmax(1) for x in images.split(BATCH)])
    return (found == labels).float().mean().item()


def six_views(network: Network, images: Tensor) -> Tensor:
    """The image half, its shifts by a pixel along the diagonal a quarter each; all mirrored too."""
    padded = F.pad(images, (1,) * 4, "reflect")
    views = ((images, 0.5), (padded[..., :32, :32], 0.25), (padded[..., 2:, 2:], 0.25))
    return sum(w * (network(x) + network(x.flip(-1))) for x, w in views)


def synchronize() -> None:
    """Wait for a GPU's queue, so that the clock sees the work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
