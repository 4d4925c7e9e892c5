import io
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_bytes
from fairdx.data.form import ImageWarning

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

FORM = Form(size=16)
RAMP = np.arange(256, dtype=np.int16).reshape(16, 16) * 8  # 0 to 2040


def dicom(pixels=RAMP, syntax=ExplicitVRLittleEndian, **attributes):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if syntax == ImplicitVRLittleEndian else ExplicitVRLittleEndian
    )
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.3"
    image.Rows, image.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[:2]
    image.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    image.PhotometricInterpretation = "RGB" if image.SamplesPerPixel == 3 else "MONOCHROME2"
    if image.SamplesPerPixel == 3:
        image.PlanarConfiguration = 0
    image.BitsAllocated = image.BitsStored = 8 * pixels.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(image, name, value)
    if syntax in (RLELossless, JPEG2000Lossless):
        image.compress(syntax)
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shown(low, high, values=RAMP):
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


CASES = {
    "range of the image": (dicom(), FORM, shown(0, 2040)),
    "window given, rescaled": (
        dicom(RescaleSlope=1, RescaleIntercept=-1024),
        Form(size=16, window=(-600, 1500)),
        shown(-1350, 150, RAMP - 1024),
    ),
    # Part 3, C.11.2.1.2: LINEAR goes from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2.
    "window of the file": (
        dicom(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1000, WindowWidth=1001),
        FORM,
        shown(499.5, 1499.5, RAMP * 2.0 - 100),
    ),
    "first of several windows": (
        dicom(WindowCenter=[1000, 40], WindowWidth=[1001, 400]),
        FORM,
        shown(499.5, 1499.5),
    ),
    "MONOCHROME1": (dicom(PhotometricInterpretation="MONOCHROME1"), FORM, 255 - shown(0, 2040)),
    "12 bits stored": (
        dicom(RAMP.astype(np.uint16), BitsStored=12, HighBit=11, WindowCenter=1000, WindowWidth=1001),
        FORM,
        shown(499.5, 1499.5),
    ),
    "implicit VR": (dicom(syntax=ImplicitVRLittleEndian), FORM, shown(0, 2040)),
    "RLE": (dicom(syntax=RLELossless), FORM, shown(0, 2040)),
}


@pytest.mark.parametrize("name", CASES)
def test_brightness(name):
    data, form, expected = CASES[name]
    assert np.abs(decode_bytes(data, form)[0] - expected).max() <= 0.51


def test_jpeg_2000():
    pytest.importorskip("openjpeg", reason="the extra `dicom` is not installed")
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    data = dicom(pixels, JPEG2000Lossless)
    assert np.abs(decode_bytes(data, Form(size=64))[0] - shown(0, 4095, pixels)).max() <= 0.51


def test_voi_table():
    table = pydicom.Dataset()
    table.LUTDescriptor = [2041, 0, 16]
    table.LUTData = np.linspace(65535, 0, 2041).round().astype("<u2").tobytes()
    data = dicom(RAMP.astype(np.uint16), VOILUTSequence=[table])
    assert np.abs(decode_bytes(data, FORM)[0] - shown(2040, 0)).max() <= 1.01


def test_colour():
    pixels = np.stack([RAMP // 8, np.full((16, 16), 7), 255 - RAMP // 8], axis=-1).astype(np.uint8)
    assert (decode_bytes(dicom(pixels), Form(size=16, channels=3)) == pixels.transpose(2, 0, 1)).all()


def test_constant_image_is_black_and_not_a_division_by_zero():
    assert decode_bytes(dicom(np.full((16, 16), 9, np.int16)), FORM).max() == 0


WHOLE = dicom()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom(np.stack([RAMP, RAMP]), NumberOfFrames=2), r"has several frames \(2\)"),
        (WHOLE[: len(WHOLE) - 100], "is damaged"),
        (WHOLE[:200], "is damaged|has no pixels"),
        (dicom(PhotometricInterpretation="PALETTE COLOR"), "is damaged|unusual colours"),
    ],
)
def test_what_cannot_be_shown(data, message):
    with pytest.raises(InputError, match=message):
        decode_bytes(data, FORM)


def test_impossible_window():
    with pytest.raises(InputError, match=r"window=.* give its centre and a width above 0"):
        Form(window=(40, 0))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(132, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, 900),
)
@example([(434, 0), (938, 48), (938, 84), (878, 67)], 466)  # with bytes behind its last pixel
def test_fuzzed_bytes_give_an_image_or_an_input_error(edits, cut):
    """An image may come with a warning, which `prepare` lists."""
    spoilt = bytearray(WHOLE)
    for position, value in edits:
        spoilt[position] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        try:
            image = decode_bytes(bytes(spoilt[: len(spoilt) - cut // 3 if cut % 3 == 0 else None]), FORM)
        except InputError:
            return
    assert image.shape == (1, 16, 16)
