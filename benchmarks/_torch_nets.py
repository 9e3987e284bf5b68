"""The two nets in torch, channels last, as the benchmarks' opponents: same layers and widths, not the same weights."""

import torch
from torch import nn

from acrn_jax.models import acrn, inception


def conv(before: int, after: int, kernel: int, stride: int = 1, *, linear: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after, eps=1e-3)]
    return nn.Sequential(*layers, *([] if linear else [nn.ReLU()]))


def chain(before: int, *layers: tuple[int, ...]) -> nn.Sequential:
    """Convolutions as (channels, kernel, stride) one after the other."""
    sizes = (before, *(layer[0] for layer in layers))
    return nn.Sequential(*(conv(size, *layer) for size, layer in zip(sizes, layers, strict=False)))


class Branches(nn.Module):
    """Concat of what the branches give; with `mix`, input + 0.2 x 1x1 of that."""

    def __init__(self, *branches: nn.Module, mix: nn.Module | None = None):
        super().__init__()
        self.branches, self.mix = nn.ModuleList(branches), mix

    def forward(self, x):
        y = torch.cat([branch(x) for branch in self.branches], 1)
        return y if self.mix is None else torch.relu(x + 0.2 * self.mix(y))


def inception_v1(classes: int) -> nn.Sequential:
    """[B, 3, H, W] -> [B, classes]: `acrn_jax.models.mva.MVA` without local views."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), conv(64, 64, 1), conv(64, 192, 3)]
    before = 192
    for name, (one, reduce3, three, reduce5, five, pool) in inception.GOOGLENET.items():
        if name in inception.POOL_BEFORE:
            layers.append(nn.MaxPool2d(3, 2, 1))
        threes, fives = chain(before, (reduce3, 1), (three, 3)), chain(before, (reduce5, 1), (five, 5))
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(before, pool, 1))
        layers.append(Branches(conv(before, one, 1), threes, fives, pooled))
        before = one + three + five + pool
    head = [nn.Linear(1024, 600), nn.BatchNorm1d(600), nn.ReLU(), nn.Linear(600, 2048), nn.BatchNorm1d(2048), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head, nn.Linear(2048, classes))


def acrn_net(classes: int, *, height: int, width: int) -> nn.Sequential:
    """[B, 3, height, width] -> [B, classes]: `acrn_jax.models.acrn.ACRN` with its classifier."""
    layers, before = [], 3
    for i, after in enumerate(acrn.STEM):
        layers += [conv(before, after, 3), nn.MaxPool2d(3, 2, 1)] if i % 2 else [conv(before, after, 3)]
        before = after
    c = acrn.STAGES[0]
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(before, c // 8, 1))
    fives, threes = (3 * c // 16, 1), (c // 4, 1)
    fives, threes = chain(before, fives, (c // 4, 5)), chain(before, threes, (3 * c // 8, 3), (3 * c // 8, 3))
    layers.append(Branches(conv(before, c // 4, 1), fives, threes, pooled))
    for i in range(1, 9):
        if after := acrn.REDUCING.get(i):
            half, less = (after - c) // 2, c // 4
            first, second = chain(c, (less, 1), (half, 3, 2)), chain(c, (less, 1), (half, 3), (half, 3, 2))
            layers.append(Branches(nn.MaxPool2d(3, 2, 1), first, second))
            c = after
        else:
            e = c // 8
            branches = conv(c, e, 1), chain(c, (e, 1), (e, 3)), chain(c, (e, 1), (3 * c // 16, 3), (c // 4, 3))
            layers.append(Branches(*branches, mix=conv(2 * e + c // 4, c, 1, linear=True)))
    places = -(-height // 32) * -(-width // 32)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(c * places, 512), nn.Linear(512, classes))
