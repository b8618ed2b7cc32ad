"""Augmentation and normalisation of a batch on the training device; every random number is given.

A batch's draws have one row for each name below and one column for each image. The rows are taken from the generator
one after the other, so that a name appended to the list leaves every other draw of every image as it was. (With one row
for each image, a new column would shift the draws of all images but the first.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fashion.config.data import DataConfig

# Rows of the uniform draws: append only, or every seed's pixels change.
(
    FLIP,
    TOP,
    LEFT,
    AREA,
    ASPECT,
    BRIGHTNESS,
    CONTRAST,
    ERASE,
    ERASE_AREA,
    ERASE_ASPECT,
    ERASE_TOP,
    ERASE_LEFT,
    CELLS,
    OPERATION,
    MAGNITUDE,
    SIGN,
) = range(16)
DRAWS = 16


def augment(pixels: Tensor, draw: Tensor, config: DataConfig, side: int) -> Tensor:
    """Crop, flip and jitter a uint8 batch (n, S, S, 3) to floats (n, 3, side, side) in [0, 1].

    `draw` (DRAWS, n) holds uniform numbers in [0, 1), one column for each image, on the batch's device. `side`
    is in pixels.
    """
    floats = AUTO_AUGMENTS[config.auto_augment](CROPS[config.crop_mode](pixels, draw, config, side), draw)
    return jitter(floats, draw, config.jitter) if config.jitter else floats


def _flipped(pixels: Tensor, draw: Tensor, probability: float) -> Tensor:
    """Some of the uint8 images (n, H, W, 3) mirrored."""
    if not probability:
        return pixels
    # torch.where takes a CPU three to ten times as long on bytes as exclusive or and a mask of ones.
    mask = (draw[FLIP] < probability).to(torch.uint8).neg()[:, None, None, None]
    return pixels.flip(2).bitwise_xor_(pixels).bitwise_and_(mask).bitwise_xor_(pixels)


def unit(pixels: Tensor) -> Tensor:
    """uint8 (n, H, W, 3) to float32 (n, 3, H, W) in [0, 1], channels_last, as torchvision's ToTensor."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def normalize_(images: Tensor, mean: Tensor, std: Tensor) -> None:
    """Subtract and divide in place, as torchvision's Normalize: images (n, 3, H, W) in channels_last memory, `mean` and
    `std` (3 W) for a row of pixels. Broadcasting over three innermost channels takes a CPU five times as long."""
    images.permute(0, 2, 3, 1).view(*images.shape[::2], -1).sub_(mean).div_(std)


def random_crop(pixels: Tensor, draw: Tensor, side: int) -> Tensor:
    """Exact uint8 windows (n, side, side, 3), every offset equally likely."""
    room = pixels.shape[1] - side + 1
    top, left = ((draw[name] * room).long().clamp_(max=room - 1) for name in (TOP, LEFT))
    windows = (
        pixels.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
    )  # a view: (n, room, room, side, side, 3)
    return windows[torch.arange(len(pixels), device=pixels.device), top, left]


def resized_crop(images: Tensor, draw: Tensor, flip: Tensor, scale: float, side: int) -> Tensor:
    """A random rectangle of each image, `scale` to 1 of its area, aspect 3/4 to 4/3, sampled to (n, 3, side, side).

    One bilinear sampling for the whole batch, flip included. It does not smooth before it shrinks, so `resize` should
    be at most about twice the training crop.
    """
    area = scale + (1 - scale) * draw[AREA]
    aspect = torch.exp((2 * draw[ASPECT] - 1) * math.log(4 / 3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(flip, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * draw[LEFT] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[TOP] - 1) * (1 - height)
    grid = F.affine_grid(theta, [len(images), 3, side, side], align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def jitter(images: Tensor, draw: Tensor, strength: float) -> Tensor:
    """Random brightness, then contrast, each by 1 - strength to 1 + strength, as torchvision's ColorJitter."""
    brightness, contrast = (1 + strength * (2 * draw[name][:, None, None, None] - 1) for name in (BRIGHTNESS, CONTRAST))
    images = (images * brightness).clamp_(0, 1)
    grey = (
        (images * images.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1))
        .sum(1, keepdim=True)
        .mean((2, 3), keepdim=True)
    )
    return torch.lerp(grey, images, contrast).clamp_(0, 1)


def erase_(images: Tensor, draw: Tensor, probability: float) -> None:
    """Random erasing in place (Zhong et al. 2020): with `probability` a rectangle of 2 to 33 % of the area and aspect
    0.3 to 3.3 becomes zero, which is the mean colour of normalised images."""
    side = images.shape[-1]
    area = 0.02 + 0.31 * draw[ERASE_AREA]
    aspect = torch.exp((2 * draw[ERASE_ASPECT] - 1) * math.log(3.3))
    width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
    steps = (torch.arange(side, device=images.device) + 0.5) / side
    top, left = draw[ERASE_TOP] * (1 - height), draw[ERASE_LEFT] * (1 - width)
    rows = (steps >= top[:, None]) & (steps < (top + height)[:, None])
    columns = (steps >= left[:, None]) & (steps < (left + width)[:, None])
    chosen = draw[ERASE] < probability
    images.masked_fill_((rows[:, :, None] & columns[:, None, :] & chosen[:, None, None])[:, None], 0.0)


def trivial_augment(images: Tensor, draw: Tensor) -> Tensor:
    """TrivialAugment, wide (Müller and Hutter 2021): one of 14 operations on each image (n, 3, H, W) in [0, 1], at one
    of 31 strengths, as torchvision's TrivialAugmentWide on bytes."""
    transform = _trivial_augment()
    space = list(transform._AUGMENTATION_SPACE.items())
    pixels = (images * 255).round_().to(torch.uint8)
    made = []
    for image, number, place, sign in zip(pixels, *draw[[OPERATION, MAGNITUDE, SIGN]].tolist(), strict=True):
        name, (strengths, signed) = space[int(number * len(space))]
        choice = strengths(transform.num_magnitude_bins, *image.shape[-2:])
        strength = 0.0 if choice is None else float(choice[int(place * len(choice))])
        strength = -strength if signed and sign < 0.5 else strength
        made.append(
            transform._apply_image_or_video_transform(
                image, name, strength, interpolation=transform.interpolation, fill=transform._fill
            )
        )
    return torch.stack(made).float().div_(255).contiguous(memory_format=torch.channels_last)


@cache
def _trivial_augment() -> Any:
    """torchvision's transform draws from torch's global generator, which other threads use, too. So its operations are
    called by their names, with draws that are given."""
    from torchvision.transforms import v2  # here, since it takes a while to load

    return v2.TrivialAugmentWide()


# The keys are the words that `DataConfig.auto_augment` allows.
AUTO_AUGMENTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda images, draw: images,
    "trivial": trivial_augment,
}
# How a training crop becomes floats (n, 3, side, side), from uint8 pixels, draws, settings and side. The keys are the
# words that `DataConfig.crop_mode` allows; for `center` the batches take the crop before they draw.
CROPS: Mapping[str, Callable[[Tensor, Tensor, DataConfig, int], Tensor]] = {
    "center": lambda pixels, draw, config, side: unit(_flipped(pixels, draw, config.flip)),
    "random": lambda pixels, draw, config, side: unit(_flipped(random_crop(pixels, draw, side), draw, config.flip)),
    "resized": lambda pixels, draw, config, side: resized_crop(
        unit(pixels), draw, draw[FLIP] < config.flip, config.crop_scale, side
    ),
}


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Each image (n, ...) mixed with that of another row of the batch (Zhang et al. 2018).

    Returns the mixtures, the targets (n, columns) of those other rows, and the share of each image's own, at least a
    half, which is the larger of x and 1 - x for x from Beta(alpha, alpha). Draws from torch's global generator.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    share = max(share, 1.0 - share)
    other = torch.randperm(len(images)).to(images.device)
    return torch.lerp(images[other], images, share), targets[other], share


def cutmix(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """A box of each image (n, C, H, W) is that of another row of the batch, at the same place in all (Yun et al. 2019).

    Returns the images, the targets (n, columns) of those other rows, and the share of its area that an image has kept.
    That is x from Beta(alpha, alpha) but for what of the box lies outside of the image, whose centre is equally likely
    everywhere. Draws from torch's global generator.
    """
    kept = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(images)).to(images.device)
    middle = torch.rand(2).tolist()
    (top, bottom), (left, right) = (
        _span(size, place, (1 - kept) ** 0.5) for size, place in zip(images.shape[-2:], middle, strict=True)
    )
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[other, :, top:bottom, left:right]
    return mixed, targets[other], 1 - (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])


def _span(size: int, middle: float, share: float) -> tuple[int, int]:
    """From where to where a side of the box goes: `share` of `size` pixels around `middle` of it, within the image."""
    length, centre = round(size * share), int(size * middle)
    return max(0, centre - length // 2), min(size, centre - length // 2 + length)


def mixture(images: Tensor, targets: Tensor, mixup_alpha: float, cutmix_alpha: float) -> tuple[Tensor, Tensor, float]:
    """What `train.mixup` and `train.cutmix` make of a batch: one of them, or where both are on either, at random."""
    if mixup_alpha and (not cutmix_alpha or float(torch.rand(())) < 0.5):
        return mixup(images, targets, mixup_alpha)
    return cutmix(images, targets, cutmix_alpha)
