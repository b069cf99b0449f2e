"""Batches of crops depend on the seed alone, have one size and about as many pixels, and hints tell the truth."""

import numpy as np
import pytest
from scipy import ndimage

from colorizer.data.photos import Photos
from colorizer.pixels.color import merge_luminance, split_luminance, to_uint8
from colorizer.training.crops import CropReader

BRIGHT, DARK = np.array([230, 220, 40], np.uint8), np.array([30, 30, 160], np.uint8)
CHROMA = {name: split_luminance(color[None])[1][0] for name, color in (("bright", BRIGHT), ("dark", DARK))}
SEED = (0, 0)


def _photos(pictures):
    sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
    offsets = np.concatenate([[0], np.cumsum([picture.size for picture in pictures])])
    pixels = np.concatenate([picture.ravel() for picture in pictures])
    return Photos(pixels, offsets, sizes, [f"{index}.png" for index in range(len(pictures))])


def _read(pictures, steps, seed=SEED, batch_size=4, small_images=(), hinted_share=0.2, **options):
    small_images = np.array(small_images, np.uint8).reshape(-1, 32, 32, 3)
    reader = CropReader(_photos(pictures), np.arange(len(pictures)), small_images, batch_size, **options)
    return [[part.numpy() for part in batch] for batch in reader.draw_batches(steps, seed, hinted_share)]


def _two_colours(height, width):
    """Return a picture whose left half is bright and yellow, and whose right half is dark and blue."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = BRIGHT, DARK
    return picture


@pytest.fixture(scope="module")
def noise():
    """Return three pictures in which all pixels differ."""
    generator = np.random.default_rng(0)
    sizes = (150, 200), (192, 150), (160, 160)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def batches(noise):
    """Return batches of crops of noise and of small images."""
    return _read(noise, 60, small_images=np.full((5, 32, 32, 3), BRIGHT))


@pytest.fixture(scope="module")
def two_coloured():
    return _read([_two_colours(160, 180)], 40)


def test_every_batch_has_one_size_and_about_as_many_pixels(batches):
    found = set()
    for luminance, chroma, hints in batches:
        count, size = luminance.shape[:2]
        found.add(size)
        assert luminance.shape == (count, size, size, 1)
        assert (chroma.shape, hints.shape) == ((count, size, size, 2), (count, size, size, 3))
        assert abs(count - 4 * (128 / size) ** 2) <= 0.5
        assert {part.dtype for part in (luminance, chroma, hints)} == {np.dtype(np.float32)}
        assert luminance.min() >= 0 and luminance.max() <= 1
        assert np.abs(chroma).max() <= 0.5
    assert found == {64, 96, 128, 160, 192, 224}
    assert all(size % 32 == 0 for size in found)  # The network takes no others.


def test_small_images_fill_whole_batches(batches):
    expected = CHROMA["bright"]
    small = [np.allclose(chroma, expected, atol=1e-3) for _, chroma, _ in batches]
    assert small == [luminance.shape[1] == 64 for luminance, _, _ in batches]
    assert any(small)


def test_the_seed_alone_decides(noise):
    first, again, other = (_read(noise, 3, seed) for seed in (SEED, SEED, (0, 1)))
    for batch, same in zip(first, again, strict=True):
        for part, equal in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, equal)
    assert not any(np.array_equal(batch[0], changed[0]) for batch, changed in zip(first, other, strict=True))


def test_every_photo_is_used_before_any_is_used_again():
    colours = np.random.default_rng(0).integers(0, 256, (7, 3), np.uint8)
    pictures = [np.full((160, 160, 3), colour, np.uint8) for colour in colours]
    seen = np.concatenate([chroma[:, 0, 0] for _, chroma, _ in _read(pictures, 12)])
    chosen = np.abs(seen[:, None] - split_luminance(colours)[1]).sum(axis=-1).argmin(axis=1)
    for start in range(0, len(chosen) - 6, 7):
        assert sorted(chosen[start : start + 7]) == list(range(7))
    assert len(chosen) > 14


def test_the_luminance_belongs_to_the_chroma_also_in_mirrored_crops(two_coloured):
    """Ageing changes the luminance and never its order: what is yellow stays brighter than what is blue."""
    for luminance, chroma, _ in two_coloured:
        for plane, colours in zip(luminance[..., 0], chroma, strict=True):
            bright, dark = (np.abs(colours - CHROMA[name]).max(axis=-1) < 1e-3 for name in ("bright", "dark"))
            if bright.sum() > 50 and dark.sum() > 50:
                assert plane[bright].mean() > plane[dark].mean() + 0.1


def test_ageing_gives_the_same_colours_many_luminances(two_coloured):
    values = [plane[0, 0, 0] for luminance, _, _ in two_coloured for plane in luminance]
    assert np.std(values) > 0.05


def _starts_bright(chroma):
    left, right = chroma[:, 0, 0], chroma[:, 0, -1]
    bright = [np.abs(side - CHROMA["bright"]).max(axis=-1) < 1e-3 for side in (left, right)]
    both = bright[0] != bright[1]
    return bright[0][both].tolist()


@pytest.mark.parametrize("mirror", [True, False])
def test_half_of_the_crops_are_mirrored_if_wanted(two_coloured, mirror):
    batches = two_coloured if mirror else _read([_two_colours(160, 180)], 10, mirror=False)
    starts = [start for _, chroma, _ in batches for start in _starts_bright(chroma)]
    assert len(starts) > 10
    assert 0.3 < np.mean(starts) < 0.7 if mirror else all(starts)


@pytest.mark.parametrize("shape", [(150, 300), (300, 150), (192, 192)])
def test_a_crop_is_never_distorted_by_more_than_one_and_a_half(shape):
    """Cb rises from row to row and Cr from column to column, so they tell how many of each a crop has."""
    cb, cr = np.meshgrid(*(np.linspace(-0.2, 0.2, side, dtype=np.float32) for side in shape), indexing="ij")
    picture = to_uint8(merge_luminance(np.full((*shape, 1), 0.5, np.float32), np.stack([cb, cr], axis=-1)))
    ratios = []
    for _, chroma, _ in _read([picture], 15, mirror=False):
        along_rows, along_columns = chroma[..., 0].mean(axis=2), chroma[..., 1].mean(axis=1)
        rows, columns = (
            np.ptp(values, axis=1) * side for values, side in zip((along_rows, along_columns), shape, strict=True)
        )
        ratios += (rows / columns).tolist()
    assert 1 / 1.6 < min(ratios) < 0.85
    assert 1.15 < max(ratios) < 1.6


def test_hints_reveal_the_mean_chroma_of_patches(batches):
    checked = 0
    for _, chroma, hints in batches:
        mask = hints[..., 2]
        np.testing.assert_allclose(mask * (mask - 1), 0, atol=1e-5)  # It is 0 or 1.
        assert not hints[mask < 0.5].any()
        for truth, values, revealed in zip(chroma, hints[..., :2], mask > 0.5, strict=True):
            if revealed.all():  # One in a hundred reveals everything.
                np.testing.assert_array_equal(values, truth)
                continue
            labels, _ = ndimage.label(revealed, np.ones((3, 3)))
            for place in ndimage.find_objects(labels):
                patch = values[place]
                alone = revealed[place].all() and np.ptp(patch, axis=(0, 1)).max() < 1e-5
                if alone and patch.shape[0] == patch.shape[1]:  # Patches that overlap have other shapes or values.
                    np.testing.assert_allclose(patch[0, 0], truth[place].mean(axis=(0, 1)), atol=1e-4)
                    assert len(patch) <= round(9.5 * len(truth) / 256)
                    checked += 1
    assert checked > 30


def test_the_given_share_of_the_crops_has_hints(two_coloured, batches):
    hinted = np.concatenate([hints[..., 2].any(axis=(1, 2)) for _, _, hints in [*two_coloured, *batches]])
    assert len(hinted) > 300
    assert abs(hinted.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(hinted))
    for share in 0, 1:
        masks = [hints[..., 2] for _, _, hints in _read([_two_colours(160, 180)], 10, hinted_share=share)]
        assert {bool(mask.any()) for batch in masks for mask in batch} == {bool(share)}


def test_tiny_pictures_are_enlarged():
    for luminance, chroma, _ in _read([np.full((1, 2, 3), BRIGHT, np.uint8)], 2):
        np.testing.assert_allclose(chroma, np.broadcast_to(CHROMA["bright"], chroma.shape), atol=1e-3)
        assert np.isfinite(luminance).all()
