"""Slices of volumes, against nibabel's own coordinates."""

import gzip

import numpy as np
import pytest

from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_bytes

nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")

RIGHT, FRONT, HEAD = 16, 12, 5
VALUES = np.arange(RIGHT * FRONT * HEAD, dtype=np.int16).reshape(RIGHT, FRONT, HEAD)


def volume(axes=((0, 1), (1, 1), (2, 1)), values=VALUES, spacing=(1.0, 1.0, 3.0), kind=None):
    """The same body, stored along other axes and in other directions."""
    image = (kind or nibabel.Nifti1Image)(values, np.diag([*spacing, 1.0]))
    return image.as_reoriented(np.array(axes, dtype=float)).to_bytes()


def expected(place, low, high):
    """Rows from front to back; the patient's right is on the left."""
    shown = VALUES[::-1, ::-1, place].T.astype(float)
    return np.clip((shown - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize(
    "axes", [((0, 1), (1, 1), (2, 1)), ((0, -1), (1, -1), (2, 1)), ((1, 1), (2, -1), (0, -1))]
)
@pytest.mark.parametrize("packed", [False, True])
def test_slices_are_axial_however_they_are_stored(axes, packed):
    data = volume(axes)
    data = gzip.compress(data) if packed else data
    with pytest.raises(InputError, match=r"has several slices \(5\): choose one"):
        decode_bytes(data, Form(size=16))
    for place in (0, 3):
        found = decode_bytes(data, Form(size=16, frame=place + 1))[0].astype(float)
        low, high = VALUES[:, :, place].min(), VALUES[:, :, place].max()
        assert np.abs(found[2:14] - expected(place, low, high)).max() <= 0.51
    window = decode_bytes(data, Form(size=16, frame=1, window=(400, 200)))[0].astype(float)
    assert np.abs(window[2:14] - expected(0, 300, 500)).max() <= 0.51


def test_second_edition_and_spacing():
    found = decode_bytes(volume(kind=nibabel.Nifti2Image), Form(size=16, frame=1))[0].astype(float)
    low, high = VALUES[:, :, 0].min(), VALUES[:, :, 0].max()
    assert np.abs(found[2:14] - expected(0, low, high)).max() <= 0.51
    tall = decode_bytes(volume(values=VALUES + 9, spacing=(1, 2, 3)), Form(size=24, frame=1, window=(0, 2)))[
        0
    ]
    assert (tall > 0).any(axis=0).sum() == 16
    assert (tall > 0).any(axis=1).sum() == 24


def test_what_is_no_volume():
    with pytest.raises(InputError, match="is not one volume of three dimensions"):
        decode_bytes(volume(values=np.stack([VALUES, VALUES], axis=-1)), Form(size=16, frame=1))
    with pytest.raises(InputError, match="not plain numbers"):
        decode_bytes(volume(values=VALUES + 1j), Form(size=16, frame=1))
    with pytest.raises(InputError, match="is damaged"):
        decode_bytes(volume()[:-100], Form(size=16, frame=5))
    with pytest.raises(InputError, match="is not PNG"):
        decode_bytes(gzip.compress(b"text"), Form(size=16))
