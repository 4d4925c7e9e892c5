import numpy as np
import pytest

from fairdx.data.looks import look_at, strangeness

RNG = np.random.default_rng(0)
USUAL = RNG.normal(110, 40, (60, 1, 16, 16)).clip(0, 255).astype(np.uint8)


def test_figures_counted_by_hand():
    image = np.zeros((1, 1, 4, 4), np.uint8)
    image[0, 0, 1:3, 1:4] = [[100, 200, 100], [100, 100, 200]]
    look = look_at(image).iloc[0]
    assert (look["low"], look["high"]) == (0, 200)
    assert look["mean"] == pytest.approx(800 / 16)
    assert look["spread"] == pytest.approx(np.sqrt((4 * 100**2 + 2 * 200**2) / 16 - 50**2))
    assert look["sharpness"] == pytest.approx((100 + 100 + 100 + 100 + 0 + 100) / 12)
    assert look["shown"] == pytest.approx(2 / 4 * 3 / 4)
    assert look_at(np.zeros((2, 3, 4, 4), np.uint8))["shown"].tolist() == [0, 0]


@pytest.mark.parametrize("strange", ["white", "sharp", "smooth"])
def test_an_image_unlike_the_others_is_the_strangest(strange):
    images = USUAL.copy()
    images[7] = {
        "white": np.full((1, 16, 16), 247) + RNG.integers(0, 5, (1, 16, 16)),
        "sharp": np.indices((16, 16)).sum(axis=0)[None] % 2 * 255,
        "smooth": np.linspace(0, 255, 16)[None, :, None] * np.ones((1, 16, 16)),
    }[strange]
    score = strangeness(look_at(images))
    assert score.argmax() == 7
    assert score[7] > 8
    assert score.drop(7).max() < 8


def test_of_few_images_none_is_strange():
    assert (strangeness(look_at(USUAL[:10])) == 0).all()
