"""Networks of other people, rebuilt from their published sources with their module names.

``state_dict()`` of each is the layout of its author's files, names and shapes; its forward pass is
what the author's network answers. Repository, file and commit stand beside each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from peers import families, preact, resnets
from peers.resnets import chenyaofo, huyvnphan

__all__ = ["PEERS", "chenyaofo", "filled", "huyvnphan"]

# the peer, our model, the options that its file calls for, the side of its images
PEERS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, str], int]] = {
    "akamaster": (resnets.akamaster, "resnet20", {}, 32),
    "akamaster, option B": (resnets.akamaster_b, "resnet20", {"shortcut": "conv"}, 32),
    "chenyaofo": (resnets.chenyaofo, "resnet20", {"shortcut": "conv"}, 32),
    "chenyaofo, CIFAR-100": (resnets.chenyaofo_100, "resnet32", {"shortcut": "conv"}, 32),
    "pytorchcv": (resnets.pytorchcv, "resnet20", {"shortcut": "conv"}, 32),
    "pytorchcv, ImageNet": (resnets.pytorchcv_resnet18, "resnet18", {}, 64),
    "torchvision": (resnets.torchvision_resnet18, "resnet18", {}, 64),
    "timm": (resnets.timm_resnet18, "resnet18", {}, 64),
    "kuangliu": (resnets.kuangliu, "resnet18_cifar", {}, 32),
    "detectors": (resnets.detectors, "resnet18_cifar", {}, 32),
    "weiaicunzai": (resnets.weiaicunzai, "resnet18_cifar", {}, 32),
    "mmpretrain": (resnets.mmpretrain, "resnet18_cifar", {}, 32),
    "torchvision, bottlenecks": (resnets.torchvision_resnet50, "resnet50_cifar", {}, 32),
    "pytorchcv, squeeze": (preact.pytorchcv_seresnet20, "seresnet20", {}, 32),
    "kuangliu, pre-activation": (preact.kuangliu, "preact_resnet18", {"ending": "plain"}, 32),
    "xternalz": (preact.xternalz, "wrn16_2", {}, 32),
    "pytorchcv, pre-activation": (preact.pytorchcv_preresnet20, "preresnet20", {}, 32),
    "pytorchcv, wide": (preact.pytorchcv_wrn16_2, "wrn16_2", {}, 32),
    "pytorchcv, bottlenecks": (preact.pytorchcv_preresnet164, "preresnet164", {}, 32),
    "pytorchcv, pyramid": (preact.pytorchcv_pyramidnet, "pyramidnet110_a48", {}, 32),
    "pytorchcv, dense": (preact.pytorchcv_densenet, "densenet_bc40_k12", {}, 32),
    "pytorchcv, groups": (preact.pytorchcv_resnext, "resnext29_32x4d", {}, 32),
    "kuangliu, VGG": (families.kuangliu_vgg, "vgg11_bn", {}, 32),
    "chenyaofo, MobileNet": (families.chenyaofo_mobilenet, "mobilenetv2_x0_5", {}, 32),
    "chenyaofo, ShuffleNet": (families.chenyaofo_shufflenet, "shufflenetv2_x0_5", {}, 32),
    "chenyaofo, RepVGG": (families.chenyaofo_repvgg, "repvgg_a0", {}, 32),
    "chenyaofo, deployed": (families.chenyaofo_deployed, "repvgg_a0", {"form": "plain"}, 32),
    "Page": (families.page, "resnet9", {}, 32),
    "locuslab": (families.locuslab, "convmixer256_8", {}, 32),
    "xvel": (families.xvel, "tiniest", {}, 32),
    "SHI-Labs": (families.shi_labs, "cct_7_3x1", {}, 32),
    "timm, ViT": (families.timm_vit, "vit_tiny_patch4", {}, 32),
    "airbench94": (resnets.airbench94, "airbench94", {}, 32),
    "airbench94_muon": (resnets.airbench94_muon, "airbench94", {}, 32),
    "airbench95": (resnets.airbench95, "airbench95", {}, 32),
    "airbench96": (resnets.airbench96, "airbench96", {}, 32),
}


def filled(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` in evaluation mode, with running statistics that are not those of a new one."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return network.eval()
