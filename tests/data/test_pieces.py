"""Pieces of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yeastexp.data import pieces
from yeastexp.data.pieces import Pieces, StoredImage
from yeastexp.errors import UserError


def test_pieces_are_iterated_in_bands_as_often_as_one_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BAND", 14)
    values = torch.arange(60.0).reshape(2, 10, 3)
    image = Pieces.of(values)
    for _ in range(2):
        assert [band.shape[1] for band in image] == [4, 4, 2]
        assert torch.equal(torch.cat(list(image), dim=1), values)
    assert torch.equal(image.whole, values)


def test_bands_make_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BAND", 12)
    assert list(pieces.bands((10, 3))) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert list(pieces.bands((2, 20))) == [slice(0, 1), slice(1, 2)]


def test_an_image_in_memory_is_read_as_a_stored_one() -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    image = StoredImage.of("a", values)
    assert (image.shape, image.size, image.dtype) == ((2, 3, 4), (3, 4), np.uint16)
    np.testing.assert_array_equal(image.read(slice(1, 3), slice(0, 2)), values[:, 1:3, :2])
    np.testing.assert_array_equal(image.whole, values)


def test_infinite_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"^a: holds NaN or infinite values; fix or remove it$"):
        pieces.refuse_nan("a", np.array([1.0, np.nan]))
    pieces.refuse_nan("a", np.array([1.0, -1e30]))
    pieces.refuse_nan("a", np.array([1, 2]))
