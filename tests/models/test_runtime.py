"""A precision that is left open is measured, and the slower kind of network decides."""

import pytest
import torch

from fairdx.models import runtime
from fairdx.models.runtime import TrainerSettings, precision_of


@pytest.fixture(autouse=True)
def able(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    runtime._bf16_gains.cache_clear()
    yield
    runtime._bf16_gains.cache_clear()


@pytest.mark.parametrize(
    ("dense", "depthwise", "expected"), [(2.0, 0.2, "fp32"), (2.0, 1.6, "bf16"), (1.1, 3.0, "fp32")]
)
def test_bf16_has_to_be_faster_for_every_kind_of_layer(monkeypatch, dense, depthwise, expected):
    monkeypatch.setattr(runtime, "_gain", lambda groups: dense if groups == 1 else depthwise)
    assert precision_of(TrainerSettings(device="cpu")) == expected


def test_what_is_asked_for_is_not_measured(monkeypatch):
    monkeypatch.setattr(runtime, "_gain", lambda groups: pytest.fail("measured"))
    for precision in ("fp32", "bf16"):
        assert precision_of(TrainerSettings(device="cpu", precision=precision)) == precision


def test_measuring_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert runtime._gain(64) > 0
    torch.testing.assert_close(torch.rand(2), expected)
