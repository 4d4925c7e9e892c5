"""Weights under other names come out as the network's own; others are refused."""

import pytest
import timm
import torch
from safetensors.torch import load_file

from fairdx.core.errors import InputError
from fairdx.models.conversion import convert_weights

NETWORK = "test_efficientnet"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model(NETWORK)


def test_renamed_weights_score_the_same(network, tmp_path):
    own = network.state_dict()
    torch.save({f"theirs.{place}": tensor for place, tensor in enumerate(own.values())}, tmp_path / "a.pth")
    # Counters have to be told by their names: these have none of their own, so they are left out here.
    kept = {name: tensor for name, tensor in own.items() if "num_batches" not in name}
    torch.save({f"theirs.{place}": tensor for place, tensor in enumerate(kept.values())}, tmp_path / "b.pth")
    count = convert_weights(tmp_path / "b.pth", NETWORK, tmp_path / "b.safetensors")
    assert count == len(kept)
    other = timm.create_model(NETWORK)
    other.load_state_dict(load_file(tmp_path / "b.safetensors"), strict=False)
    image = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(other.eval()(image), network.eval()(image), rtol=0, atol=0)
    with pytest.raises(InputError, match="another network, or another order"):
        convert_weights(tmp_path / "a.pth", NETWORK, tmp_path / "a.safetensors")


def test_weights_are_not_written_over_those_that_are_read(network, tmp_path, here):
    weights = tmp_path / "a.pth"
    torch.save(network.state_dict(), weights)
    before = weights.read_bytes()
    told = here("convert-weights", weights, "--encoder", NETWORK, "--out", weights)
    assert told.returncode == 2
    assert "would overwrite what is read" in told.stderr
    assert weights.read_bytes() == before
    assert (
        here("convert-weights", weights, "--encoder", NETWORK, "--out", tmp_path / "x" / "y").returncode == 0
    )
    assert set(load_file(tmp_path / "x" / "y")) == {n for n in network.state_dict() if "num_batches" not in n}


def test_what_does_not_fit_is_refused_in_a_sentence(network, tmp_path):
    weights = dict(list(network.state_dict().items())[:-1])
    torch.save(weights, tmp_path / "short.pth")
    with pytest.raises(InputError, match="and the network has"):
        convert_weights(tmp_path / "short.pth", NETWORK, tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="timm has no model"):
        convert_weights(tmp_path / "short.pth", "nothing", tmp_path / "out.safetensors")
    torch.save(network, tmp_path / "pickle.pth")  # code: never run
    with pytest.raises(InputError, match="plain weights"):
        convert_weights(tmp_path / "pickle.pth", NETWORK, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda weights: {"epoch": 3, "net": weights}, "`epoch` is no tensor"),
        (lambda weights: {"state_dict": 3}, "holds no tensors by name"),
        (list, "holds no tensors by name"),
    ],
)
def test_a_checkpoint_with_more_than_weights_is_refused(network, tmp_path, wrap, message):
    torch.save(wrap(dict(network.state_dict())), tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match=message):
        convert_weights(tmp_path / "checkpoint.pth", NETWORK, tmp_path / "out.safetensors")
