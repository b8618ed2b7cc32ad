"""TrivialAugment with draws that are given, against torchvision's own transform with the same draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from fashion.data.augment import DRAWS, MAGNITUDE, OPERATION, SIGN, trivial_augment

SPACE = list(v2.TrivialAugmentWide._AUGMENTATION_SPACE.items())


def images(count: int) -> torch.Tensor:
    pixels = torch.randint(0, 256, (count, 3, 24, 20), generator=torch.Generator().manual_seed(1))
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def torchvisions(
    image: torch.Tensor, operation: int, place: int, sign: float, patch: pytest.MonkeyPatch
) -> torch.Tensor:
    transform = v2.TrivialAugmentWide()
    with patch.context() as patched:
        patched.setattr(transform, "_get_random_item", lambda space: SPACE[operation])
        patched.setattr(torch, "randint", lambda *sizes: torch.tensor(place))
        patched.setattr(torch, "rand", lambda *sizes: torch.tensor(sign))
        found: torch.Tensor = transform((image * 255).round().to(torch.uint8))
    return found.float() / 255


@pytest.mark.parametrize("place", [0, 7, 30])
@pytest.mark.parametrize("sign", [0.2, 0.8])
def test_every_operation_is_torchvisions(place: int, sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given = images(len(SPACE))
    draw = torch.rand(DRAWS, len(SPACE))
    draw[OPERATION] = (torch.arange(len(SPACE)) + 0.5) / len(SPACE)
    draw[MAGNITUDE], draw[SIGN] = (place + 0.5) / 31, sign
    found = trivial_augment(given, draw)
    assert found.shape == given.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    for number, image in enumerate(given):
        torch.testing.assert_close(found[number], torchvisions(image, number, place, sign, monkeypatch), rtol=0, atol=0)


def test_operations_and_strengths_are_equally_likely_and_only_the_draws_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(self: Any, image: Any, name: str, strength: float, **options: Any) -> Any:
        seen.append((name, round(strength, 6)))
        return image

    monkeypatch.setattr(v2.TrivialAugmentWide, "_apply_image_or_video_transform", note)
    draw = torch.rand(DRAWS, 7000, generator=torch.Generator().manual_seed(0))
    given = images(1).expand(7000, -1, -1, -1)
    torch.manual_seed(0)
    trivial_augment(given, draw)
    first, seen[:] = list(seen), []
    state = torch.random.get_rng_state()
    trivial_augment(given, draw)
    assert seen == first
    assert torch.equal(torch.random.get_rng_state(), state), "nothing is drawn from the global generator"
    counts = {name: sum(each == name for each, _ in first) for name, _ in SPACE}
    assert all(400 < count < 600 for count in counts.values())
    assert len({strength for name, strength in first if name == "Rotate"}) == 61  # 30 each way and none
