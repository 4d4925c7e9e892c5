"""What so many images can show, against simulation."""

import numpy as np

from fairdx.inference.visibility import images_to_see, learnt_by_heart, what_can_be_seen, within_chance


def test_images_to_see_is_where_chance_meets_the_gap():
    for groups in (2, 4):
        n = images_to_see(2e-3, groups, 2)
        assert within_chance(groups, 2, n) <= 2e-3 < within_chance(groups, 2, n - 1)
    assert "8,000 images or more" in what_can_be_seen(2.5e-4, 2, 2, 1000)
    assert "or more" not in what_can_be_seen(0.02, 2, 2, 1000)


def test_a_model_that_has_learnt_its_images_by_heart_is_found_and_another_is_not():
    rng = np.random.default_rng(0)

    def drawn(separation, n=1500):
        label = rng.integers(0, 2, n)
        return label, separation * label + rng.normal(size=n)

    assert learnt_by_heart(*drawn(2.6), *drawn(1.5))  # AUC .97 and .86
    assert not any(learnt_by_heart(*drawn(1.5), *drawn(1.5)) for _ in range(20))
    assert not learnt_by_heart(*drawn(1.5), *drawn(2.6))
    assert not learnt_by_heart([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], *drawn(1.5))
