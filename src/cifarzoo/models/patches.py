"""Networks of patches: ConvMixer, the Compact Convolutional Transformer, a small ViT."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["CCT", "ConvMixer", "ConvMixerBlock", "ConvTokenizer", "EncoderBlock", "SelfAttention"]

LOCUSLAB = Layout(
    "locuslab/convmixer, locuslab/convmixer-cifar10",
    (
        (r"^0\.", "conv1."),
        (r"^2\.", "bn1."),
        *((rf"^{number + 3}\.0\.fn\.0\.", f"blocks.{number}.depthwise.") for number in range(32)),
        *((rf"^{number + 3}\.0\.fn\.2\.", f"blocks.{number}.bn1.") for number in range(32)),
        *((rf"^{number + 3}\.1\.", f"blocks.{number}.pointwise.") for number in range(32)),
        *((rf"^{number + 3}\.3\.", f"blocks.{number}.bn2.") for number in range(32)),
        (r"^\d+\.(weight|bias)$", r"fc.\1"),
    ),
)
"""convmixer.py and train.py; the network is one Sequential there."""

SHI_LABS = Layout(
    "SHI-Labs/Compact-Transformers",
    (
        (r"^tokenizer\.conv_layers\.0\.0\.", "tokenizer.conv."),
        (r"^classifier\.positional_emb$", "positions"),
        (r"^classifier\.attention_pool\.", "pool."),
        (r"^classifier\.", ""),
        (r"\.self_attn\.", ".attention."),
    ),
)
"""src/cct.py and src/utils there."""


class ConvMixerBlock(nn.Module):
    """Applies a depthwise convolution with a shortcut, then a 1x1 convolution.

    GELU and a normalization follow each convolution.

    Args:
        width: Channels.
        kernel: Size of the depthwise convolution, odd.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, groups=width, padding=kernel // 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        x = self.bn1(self.activation(self.depthwise(x))) + x
        y: Tensor = self.bn2(self.activation(self.pointwise(x)))
        return y


class ConvMixer(nn.Module):
    """ConvMixer: mixes patches in turn over pixels and over channels.

    Source: Trockman & Kolter 2022, Patches Are All You Need?, arXiv:2201.09792, figure 3 and
    section 4.2 (CIFAR-10: patches of 2 pixels, kernels of 5).

    Args:
        width: Channels.
        depth: Blocks.
        kernel: Size of the depthwise convolutions.
        patch: Height and width of a patch in pixels.
        num_classes: Size of the output.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (LOCUSLAB,)

    def __init__(
        self, width: int, depth: int, *, kernel: int = 5, patch: int = 2, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch)
        self.activation = nn.GELU()
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(ConvMixerBlock(width, kernel) for _ in range(depth)))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.blocks(self.bn1(self.activation(self.conv1(images))))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


class SelfAttention(nn.Module):
    """Applies attention with several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Args:
        width: Size of a token.
        heads: Number of heads, a divisor of ``width``.
        dropout: Probability with which an attention weight becomes 0 in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], dropout_p=dropout)
        z: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return z


class EncoderBlock(nn.Module):
    """Applies attention and then two dense layers, each with a shortcut.

    Source: Hassani et al. 2021, arXiv:2104.05704, and its code, in which the second normalization
    lies on the shortcut too.

    Args:
        width: Size of a token.
        heads: Heads of the attention.
        hidden: Size of the hidden layer.
        depth_dropout: Probability with which a branch is left out for an image in training.
    """

    def __init__(self, width: int, heads: int, hidden: int, depth_dropout: float) -> None:
        super().__init__()
        from torchvision.ops import StochasticDepth  # when it is built: the import takes long

        self.pre_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout=0.1)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(hidden, width)
        self.drop = StochasticDepth(depth_dropout, "row") if depth_dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape."""
        x = self.norm1(x + self.drop(self.attention(self.pre_norm(x))))
        y: Tensor = x + self.drop(self.linear2(self.activation(self.linear1(x))))
        return y


class ConvTokenizer(nn.Module):
    """Makes tokens by a 3x3 convolution, ReLU and max pooling: one for each pixel that is left.

    Args:
        width: Size of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H / 2 * W / 2, width)."""
        x = F.max_pool2d(F.relu_(self.conv(images)), 3, 2, 1)
        return x.flatten(2).transpose(1, 2)


class CCT(nn.Module):
    """Compact Convolutional Transformer.

    Source: Hassani et al. 2021, Escaping the Big Data Paradigm with Compact Transformers,
    arXiv:2104.05704, figure 2 and table 7: CCT-L/3x1.

    Args:
        depth: Blocks.
        width: Size of a token.
        heads: Heads of the attention.
        hidden: Size of the hidden layer of a block.
        num_classes: Size of the output.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (SHI_LABS,)

    def __init__(
        self, depth: int, *, width: int, heads: int, hidden: int, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.tokenizer = ConvTokenizer(width)
        self.positions = nn.Parameter(torch.empty(1, 256, width))
        drops = [0.1 * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden, p) for p in drops))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.fc = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.positions, std=0.2)
        nn.init.kaiming_normal_(self.tokenizer.conv.weight)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, 32, 32)."""
        x = self.norm(self.blocks(self.tokenizer(images) + self.positions))
        weights = self.pool(x).softmax(1)  # (B, 256, 1)
        logits: Tensor = self.fc((weights * x).sum(1))
        return logits


@register_family("convmixer")
def convmixer(*, width: int, depth: int, num_classes: int = 10) -> ConvMixer:
    """Build ConvMixer-width/depth, with random parameters.

    Args:
        width: Channels.
        depth: Blocks.
        num_classes: Size of the output.
    """
    return ConvMixer(width, depth, num_classes=num_classes)


@register_family("cct")
def cct(*, depth: int, width: int, heads: int, hidden: int, num_classes: int = 10) -> CCT:
    """Build a Compact Convolutional Transformer, with random parameters.

    Args:
        depth: Blocks.
        width: Size of a token.
        heads: Heads of the attention.
        hidden: Size of the hidden layer of a block.
        num_classes: Size of the output.
    """
    return CCT(depth, width=width, heads=heads, hidden=hidden, num_classes=num_classes)


@register_family("vit")
def vit(*, depth: int, width: int, heads: int, patch: int, num_classes: int = 10) -> nn.Module:
    """Build timm's Vision Transformer for 32x32 images, with random parameters.

    Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv:2010.11929, section 3.1.

    Args:
        depth: Blocks.
        width: Size of a token; that of the hidden layers is four times as large.
        heads: Heads of the attention.
        patch: Height and width of a patch in pixels.
        num_classes: Size of the output.
    """
    from timm.models import VisionTransformer  # when it is built: the import takes long

    model: nn.Module = VisionTransformer(
        img_size=32,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=num_classes,
    )
    return model
