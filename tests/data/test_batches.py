from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fashion.config.data import DataConfig
from fashion.data import augment as module
from fashion.data import batches
from fashion.data.augment import BRIGHTNESS, CONTRAST, ERASE, augment, erase_, jitter, resized_crop, unit
from fashion.data.batches import Epoch, Normalization, Worker, eval_batches, steps_per_epoch, train_batches
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.data.views import views_of
from fashion.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Normalization(MEAN, STD)


@pytest.fixture(scope="module")
def pack(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack.open_or_build(read_dataset(demo_root), "train", 40, cache_dir=tmp_path_factory.mktemp("packs"))


def config(**fields: object) -> DataConfig:
    return DataConfig.model_validate({"root": "unused", "resize": 40, "crop": 33, **fields})


def draws(n: int, seed: int = 0, **given: float) -> Tensor:
    draw = torch.rand(module.DRAWS, n, generator=torch.Generator().manual_seed(seed))
    for name, value in given.items():
        draw[getattr(module, name)] = value
    return draw


@pytest.mark.parametrize("crop", [33, 34, 37, 40])
def test_evaluation_pixels_equal_torchvision(demo_root: Path, pack: Pack, crop: int) -> None:
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    pipeline = transforms.Compose(
        [
            transforms.Resize((40, 40), bicubic),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    got = list(eval_batches(pack, config(crop=crop), IMAGENET, 20))
    expected = torch.stack([pipeline(Image.open(demo_root / name).convert("RGB")) for name in pack.names])
    assert torch.equal(torch.cat([batch.images for batch in got]), expected)
    assert [batch.global_count for batch in got] == [20, 20, 20, 20, 16]
    assert pack.labels is not None
    assert np.array_equal(torch.cat([batch.targets for batch in got]).numpy(), pack.labels)
    assert got[0].images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.real
def test_real_pixels_equal_the_reports_pipeline(real_root: Path) -> None:
    from torchvision import transforms

    from fashion.data.images import load_rgb, resize_square

    bicubic = transforms.InterpolationMode.BICUBIC
    pipeline = transforms.Compose(
        [
            transforms.Resize((320, 320), bicubic),
            transforms.CenterCrop(300),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    paths = [real_root / f"img/{number:05d}.jpg" for number in range(0, 7000, 500)]
    images = np.stack([resize_square(load_rgb(path), 320, "stretch", "bicubic") for path in paths])
    (batch,) = eval_batches(images, DataConfig(root=str(real_root)), IMAGENET, 32)
    assert torch.equal(batch.images, torch.stack([pipeline(Image.open(path).convert("RGB")) for path in paths]))


def test_views_are_torchvisions_five_crops_and_their_mirrors(pack: Pack) -> None:
    from torchvision import transforms

    settings = config(crop=33, eval_crops=5, eval_flip=True)
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    batches = list(eval_batches(pack, settings, IMAGENET, 40, views=views_of(settings)))
    assert [batch.global_count for batch in batches] == [40, 40, 16]
    for row in (0, 17, 39):
        *corners, centre = transforms.FiveCrop(33)(Image.fromarray(pack.images[row]))
        crops = [centre, *corners]
        expected = [to_tensor(crop) for crop in (*crops, *map(ImageOps.mirror, crops))]
        got = torch.stack([view[row] for view in (batches[0].images, *batches[0].others)])
        assert torch.equal(got, torch.stack(expected))


@pytest.mark.parametrize("world", [2, 3, 7])
def test_evaluation_shards_hold_every_image_once(pack: Pack, world: int) -> None:
    whole = torch.cat([batch.images for batch in eval_batches(pack, config(), IMAGENET, 13)])
    shards = [
        torch.cat([batch.images for batch in eval_batches(pack, config(), IMAGENET, 13, Worker(rank, world))])
        for rank in range(world)
    ]
    assert sum(map(len, shards)) == 96
    for rank, shard in enumerate(shards):
        assert torch.equal(shard, whole[rank::world])


def test_evaluating_a_bare_array_and_an_empty_shard(pack: Pack) -> None:
    (batch,) = eval_batches(pack.images[:3], config(), IMAGENET, 8)
    assert batch.targets.shape == (3, 0)
    assert not list(eval_batches(pack.images[:3], config(), IMAGENET, 8, Worker(3, 4)))


@pytest.mark.parametrize("mode", ["center", "random", "resized"])
@pytest.mark.parametrize("world", [2, 3])
def test_workers_together_see_what_one_worker_sees(pack: Pack, mode: str, world: int) -> None:
    settings = config(crop_mode=mode, train_crop=24, jitter=0.3, erase=0.5)
    one = list(train_batches(pack, settings, IMAGENET, Epoch(5, 20, seed=3)))
    parts = [
        list(train_batches(pack, settings, IMAGENET, Epoch(5, 20, seed=3), Worker(rank, world)))
        for rank in range(world)
    ]
    assert len({len(part) for part in parts} | {len(one)}) == 1
    for step, batch in enumerate(one):
        for rank in range(world):
            share = parts[rank][step]
            assert torch.allclose(share.images, batch.images[rank::world], atol=1e-5)
            assert torch.equal(share.targets, batch.targets[rank::world])
            assert share.global_count == batch.global_count == len(batch.images)


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(pack: Pack) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        whole = {image.tobytes(): row for row, image in enumerate(unit(torch.from_numpy(pack.images.copy())).numpy())}
        settings = config(crop=40, flip=0.0)
        got = [
            batch.images
            for batch in train_batches(pack, settings, Normalization((0, 0, 0), (1, 1, 1)), Epoch(epoch, 32, seed))
        ]
        return [whole[np.ascontiguousarray(image).tobytes()] for batch in got for image in batch.numpy()]

    first = order(0, 0)
    assert sorted(first) == list(range(96))
    assert first != sorted(first)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first


def test_center_without_flip_equals_evaluation(pack: Pack) -> None:
    settings = config(flip=0.0)
    order = np.random.default_rng([0, 0, 0]).permutation(96)
    whole = torch.cat([batch.images for batch in eval_batches(pack, settings, IMAGENET, 96)])
    train = torch.cat([batch.images for batch in train_batches(pack, settings, IMAGENET, Epoch(0, 32, 0))])
    assert torch.equal(train, whole[order])


def test_flip_always_mirrors(pack: Pack) -> None:
    never, always = (
        next(iter(train_batches(pack, config(flip=flip), IMAGENET, Epoch(0, 32, 0)))).images for flip in (0.0, 1.0)
    )
    assert torch.equal(always, never.flip(3))


def test_flip_happens_in_half_of_the_cases(pack: Pack) -> None:
    plain, half = (
        torch.cat([b.images for e in range(8) for b in train_batches(pack, config(flip=f), IMAGENET, Epoch(e, 32, 0))])
        for f in (0.0, 0.5)
    )
    flipped = (plain != half).flatten(1).any(dim=1).float().mean().item()
    assert abs(flipped - 0.5) < 0.06  # 768 images: 3.3 standard errors


def test_random_crops_are_exact_windows_with_every_offset() -> None:
    pixels = torch.arange(6 * 6, dtype=torch.uint8).view(1, 6, 6, 1).repeat(500, 1, 1, 3)
    got = augment(pixels, draws(500), config(resize=8, crop=8, train_crop=8, crop_mode="random", flip=0.0), 4)
    corners = (got[:, 0, 0, 0] * 255).round().long()
    assert set(corners.tolist()) == {row * 6 + column for row in range(3) for column in range(3)}
    for image, corner in zip(got[:20], corners[:20], strict=True):
        top, left = divmod(int(corner), 6)
        assert torch.equal(image, unit(pixels[:1, top : top + 4, left : left + 4])[0])


def test_resized_crop_of_everything_is_the_image_and_its_mirror(pack: Pack) -> None:
    images = unit(torch.from_numpy(pack.images[:8].copy()))
    flip = torch.arange(8) % 2 == 1
    draw = draws(8, ASPECT=0.5)
    got = resized_crop(images, draw, flip, 1.0, 40)
    assert torch.allclose(got[::2], images[::2], atol=1e-5)
    assert torch.allclose(got[1::2], images[1::2].flip(3), atol=1e-5)


def test_resized_crop_equals_a_plain_crop_and_resize() -> None:
    """Against interpolate on the same rectangle of a smooth image, where both samplings agree away from the border."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    image = torch.stack([x, y, x * y])[None]
    draw = draws(1, AREA=0.0, ASPECT=0.5, TOP=0.25, LEFT=0.75)
    got = resized_crop(image, draw, torch.tensor([False]), 0.25, 32)  # half the side: 32 px from (8, 24)
    assert torch.allclose(got, image[:, :, 8:40, 24:56], atol=1e-5)


def test_jitter_equals_torchvision(pack: Pack) -> None:
    from torchvision.transforms.v2 import functional as tvf

    images = unit(torch.from_numpy(pack.images[:6].copy()))
    draw = draws(6)
    got = jitter(images.clone(), draw, 0.4)
    for image, column, jittered in zip(images, draw.T, got, strict=True):
        brightness, contrast = (float(1 + 0.4 * (2 * column[name] - 1)) for name in (BRIGHTNESS, CONTRAST))
        assert torch.allclose(
            jittered, tvf.adjust_contrast(tvf.adjust_brightness(image, brightness), contrast), atol=1e-3
        )


def test_erasing_takes_one_rectangle_of_the_stated_area() -> None:
    images = torch.ones(400, 3, 50, 50)
    draw = draws(400)
    erase_(images, draw, 0.5)
    holes = (images == 0).all(dim=1)
    hit = holes.flatten(1).any(dim=1)
    assert torch.equal(hit, draw[ERASE] < 0.5)
    for hole in holes[hit]:
        rows, columns = hole.any(dim=1).sum(), hole.any(dim=0).sum()
        assert hole.sum() == rows * columns
        assert 0.01 < hole.float().mean() < 0.36


def test_switching_one_augmentation_leaves_the_others(pack: Pack) -> None:
    plain, erased = (
        torch.cat(
            [b.images for b in train_batches(pack, config(crop_mode="random", erase=e), IMAGENET, Epoch(0, 32, 0))]
        )
        for e in (0.0, 1.0)
    )
    assert torch.equal(erased[erased != 0], plain[erased != 0])


def test_a_new_augmentation_leaves_the_draws_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Epoch(2, 32, seed=5)
    before = epoch.draws(7, step=3)
    monkeypatch.setattr(batches, "DRAWS", module.DRAWS + 1)
    after = epoch.draws(7, step=3)
    assert len(after) == len(before) + 1
    assert np.array_equal(after[:-1], before)  # of every image, not of the first alone


@pytest.mark.parametrize(
    ("n", "batch", "world", "steps"),
    [
        (100, 10, 1, 10),
        (101, 10, 1, 10),
        (102, 10, 1, 11),
        (103, 10, 2, 10),
        (104, 10, 2, 11),
        (5, 32, 2, 1),
        (3, 32, 2, 1),
        (8, 1, 1, 8),
    ],
)
def test_steps(n: int, batch: int, world: int, steps: int) -> None:
    assert steps_per_epoch(n, batch, world) == steps


def test_more_workers_than_images_is_refused() -> None:
    with pytest.raises(UserError, match="3 workers"):
        steps_per_epoch(100, 2, 3)


def test_no_rank_gets_a_batch_of_one(pack: Pack) -> None:
    for rank in range(3):
        assert (
            min(len(b.images) for b in train_batches(pack, config(), IMAGENET, Epoch(0, 19, 0), Worker(rank, 3))) >= 2
        )


def test_wrong_size_is_a_bug_not_silence(pack: Pack) -> None:
    with pytest.raises(ValueError, match="resize: 64"):
        next(iter(eval_batches(pack, config(resize=64), IMAGENET, 4)))


def test_leaving_early_ends_the_thread(pack: Pack) -> None:
    import threading

    before = threading.active_count()
    iterator = train_batches(pack, config(), IMAGENET, Epoch(0, 8, 0))
    next(iterator)
    assert threading.active_count() > before
    iterator.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert next(iter(train_batches(pack, config(), IMAGENET, Epoch(0, 8, 0)))).images.shape[0] == 8
