"""The polarity of an image beside that of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from yeastexp.data.transforms.polarity import Polarity


def spots(bright: bool, share: float = 0.05) -> Tensor:
    """A field (1, 40, 40) of 3.0 with a share of pixels at 8.0, or at -2.0."""
    image = torch.full((1, 40, 40), 3.0)
    image.flatten()[: int(share * 1600)] += 5.0 if bright else -5.0
    return image


def applied(transform: Polarity, image: Tensor) -> Tensor:
    return transform.image(image, transform.statistics([image]))


def test_skewness_of_two_values_is_that_of_bernoulli() -> None:
    """(1 - 2 p) / √(p (1 - p)): 4.13 for p = 0.05, and 0.98 for p = 0.28."""
    assert Polarity().signs_of([spots(True)]) == [1] and Polarity().signs_of([spots(False)]) == [-1]
    assert Polarity(min_skewness=4.12).signs_of([spots(True)]) == [1] and Polarity(min_skewness=4.14).signs_of(
        [spots(True)]
    ) == [0]
    assert Polarity().signs_of([spots(True, 0.28)]) == [0] and Polarity().signs_of([torch.ones(1, 9, 9)]) == [0]


def test_the_sign_is_fitted_where_all_images_agree() -> None:
    assert Polarity().fit([spots(True), spots(True)]) == {"sign": 1}
    assert Polarity().fit([spots(False)]) == {"sign": -1}
    assert Polarity().fit([spots(True), spots(False)]) == {"sign": 0}
    assert Polarity().fit([spots(True), spots(True, 0.28)]) == {"sign": 0}
    assert Polarity(sign=-1).fit([spots(True)]) == {}


def test_an_image_of_the_other_polarity_is_mirrored_at_its_mean() -> None:
    image = spots(False)
    found = applied(Polarity(sign=1), image)
    torch.testing.assert_close(found, 2 * image.mean() - image)
    assert Polarity().signs_of([found]) == [1]
    for same in (spots(True), spots(False, 0.28), spots(True, 0.28)):
        assert torch.equal(applied(Polarity(sign=1), same), same)
    assert torch.equal(applied(Polarity(sign=0), image), image)


def test_each_channel_has_its_polarity() -> None:
    """A dim channel is mirrored at its own mean, whatever the other one holds."""
    given = torch.cat([spots(False), 1000 * spots(True)])
    found = applied(Polarity(sign=1), given)
    assert torch.equal(found[1], given[1])
    torch.testing.assert_close(found[0], 2 * given[0].mean() - given[0])
    assert Polarity().fit([given, given]) == {"sign": (-1, 1)}
    assert torch.equal(applied(Polarity(sign=(-1, 1)), given), given)
