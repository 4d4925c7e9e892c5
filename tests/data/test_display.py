"""What a DICOM image is shown as, against pydicom's own functions on the same image without its flaws."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data import codestream, decode
from fairdx.data.decode import Form, ImageWarning, decode_bytes, decode_files

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.pixels.processing import (  # noqa: E402
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
)
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

COMPRESSED = (RLELossless, JPEG2000Lossless)
FORM = Form(size=16)
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 8  # 0 to 2040


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch):
    monkeypatch.setattr(decode, "_warned", set())


def dataset(pixels=RAMP, syntax=ExplicitVRLittleEndian, without=(), **attributes):
    """An image of one or several frames; `None` writes an attribute without a value."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in COMPRESSED else syntax
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = CTImageStorage, "1.2.3", "CT"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape[-2:]
    image.BitsAllocated = image.BitsStored = 8 * pixels.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    little = syntax != ExplicitVRBigEndian
    image.set_original_encoding(syntax == ImplicitVRLittleEndian, little)
    image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    for name, value in attributes.items():
        setattr(image, name, value)
    for name in without:
        delattr(image, name)
    if syntax in COMPRESSED:
        image.compress(syntax)
    return image


def content(image):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the flaws are meant
        image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(*arguments, **attributes):
    return content(dataset(*arguments, **attributes))


def decoded(data, form=FORM):
    return decode_bytes(data, form)[0].astype(float)


def scaled(values, low, high):
    return np.clip((values - low) / (high - low), 0, 1) * 255


def reference(**attributes):
    """What pydicom makes of an image whose attributes are as they should be."""
    image = dataset(**attributes)
    values = apply_modality_lut(image.pixel_array, image).astype(float)
    if "WindowCenter" not in image and "VOILUTSequence" not in image:
        return scaled(values, values.min(), values.max())
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    return scaled(apply_windowing(values, image), intercept, 65535 * slope + intercept)


def table(entries, bits=16, first=0, kind="OW"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    numbers = np.asarray(entries, "<u2")
    item.add_new("LUTData", kind, numbers.tobytes() if kind == "OW" else numbers.tolist())
    return item


EMPTY_ITEM = Dataset()
HALF_ITEM = Dataset()
HALF_ITEM.add_new("LUTDescriptor", "US", None)
HALF_ITEM.add_new("LUTData", "OW", None)
WINDOW = {"WindowCenter": 1000, "WindowWidth": 1001}

# What is given, and the image that means the same without its flaws.
AS_ABSENT = {
    "window empty": ({"WindowCenter": None, "WindowWidth": None}, {}),
    "centre without width": ({"WindowCenter": 1000}, {}),
    "width without centre": ({"WindowWidth": 1000}, {}),
    "width empty": ({"WindowCenter": 1000, "WindowWidth": None}, {}),
    "width 0": ({"WindowCenter": 1000, "WindowWidth": 0}, {}),
    "width below 0": ({"WindowCenter": 1000, "WindowWidth": -5}, {}),
    "slope empty": ({"RescaleSlope": None, "RescaleIntercept": None, **WINDOW}, WINDOW),
    "slope 0": ({"RescaleSlope": 0, "RescaleIntercept": 0}, {}),
    "intercept empty": (
        {"RescaleSlope": 2, "RescaleIntercept": None, **WINDOW},
        {"RescaleSlope": 2, "RescaleIntercept": 0, **WINDOW},
    ),
    "intercept without slope": (
        {"RescaleIntercept": -24, **WINDOW},
        {"RescaleSlope": 1, "RescaleIntercept": -24, **WINDOW},
    ),
    "slope without intercept": (
        {"RescaleSlope": 2, **WINDOW},
        {"RescaleSlope": 2, "RescaleIntercept": 0, **WINDOW},
    ),
    "VOI table empty": ({"VOILUTSequence": [], **WINDOW}, WINDOW),
    "VOI item empty": ({"VOILUTSequence": [EMPTY_ITEM], **WINDOW}, WINDOW),
    "VOI item without values": ({"VOILUTSequence": [HALF_ITEM]}, {}),
    "VOI function empty": ({"VOILUTFunction": None, **WINDOW}, WINDOW),
    "modality table empty": ({"ModalityLUTSequence": []}, {}),
    "padding empty": ({"PixelPaddingValue": None}, {}),
    "photometric missing": ({"without": ["PhotometricInterpretation"]}, {}),
    "photometric empty": ({"PhotometricInterpretation": None}, {}),
    "samples missing": ({"without": ["SamplesPerPixel"]}, {}),
    "bits stored missing": ({"without": ["BitsStored", "HighBit"]}, {}),
    "representation missing": ({"without": ["PixelRepresentation"]}, {}),
    "number of frames empty": ({"NumberOfFrames": None}, {}),
    "spacing empty": ({"PixelSpacing": None}, {}),
    "first of two windows empty": (
        {"WindowCenter": ["", "1000"], "WindowWidth": ["", "1001"]},
        WINDOW,
    ),
}


@pytest.mark.parametrize("name", AS_ABSENT)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_empty_attribute_counts_as_absent(name, syntax):
    given, same = AS_ABSENT[name]
    assert np.abs(decoded(dicom(syntax=syntax, **given)) - reference(**same)).max() <= 0.51


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -100}])
def test_windows_against_pydicom(function, rescale):
    given = {"WindowCenter": 700, "WindowWidth": 900, "VOILUTFunction": function, **rescale}
    assert np.abs(decoded(dicom(**given)) - reference(**given)).max() <= 0.51


def test_a_window_narrower_than_one():
    values = RAMP.astype(float) / 4096
    given = {"RescaleSlope": 1 / 4096, "RescaleIntercept": 0, "WindowCenter": 0.25, "WindowWidth": 0.25}
    assert np.abs(decoded(dicom(**given)) - scaled(values, 0.125, 0.375)).max() <= 0.51


CURVE = np.linspace(0, 4095, 2041).round()
RADIOGRAPH = {"VOILUTSequence": [table(CURVE)], "PhotometricInterpretation": "MONOCHROME1"}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_voi_table_of_fewer_bits_than_it_says(photometric):
    data = dicom(VOILUTSequence=[table(CURVE)], PhotometricInterpretation=photometric)
    with pytest.warns(ImageWarning, match="VOI table whose entries have not the bits that it says"):
        found = decoded(data)
    image = dataset(VOILUTSequence=[table(CURVE)])
    expected = apply_voi_lut(image.pixel_array, image) * (255 / 4095)
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(found - expected).max() <= 0.51
    assert found.mean() == pytest.approx(127.5, abs=1)  # and not near white


@pytest.mark.parametrize(
    ("entries", "bits"), [(CURVE, 12), (CURVE * 16, 16), (np.linspace(0, 1000, 2041).round(), 10)]
)
@pytest.mark.parametrize("kind", ["OW", "US"])
def test_a_voi_table_of_as_many_bits_as_it_says(entries, bits, kind):
    image = dataset(VOILUTSequence=[table(entries, bits, kind=kind)])
    expected = apply_voi_lut(image.pixel_array, image) * (255 / (2**bits - 1))
    assert np.abs(decoded(content(image)) - expected).max() <= 0.51


def test_a_voi_table_for_negative_values_that_is_written_unsigned():
    given = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    image = dataset(VOILUTSequence=[table(CURVE * 16, 16, -1024 + 65536)], **given)
    expected = np.clip(RAMP.astype(float), 0, 2040) * (CURVE[-1] * 16 / 2040) * (255 / 65535)
    assert np.abs(decoded(content(image)) - expected).max() <= 1


def test_a_modality_table():
    image = dataset(ModalityLUTSequence=[table(np.sqrt(np.arange(2041)).round() * 10)])
    values = apply_modality_lut(image.pixel_array, image).astype(float)
    assert np.abs(decoded(content(image)) - scaled(values, values.min(), values.max())).max() <= 0.51


def test_values_below_a_table_take_its_first_entry():
    """Also unsigned ones, of which the first value of the table cannot be taken away."""
    tables = [table(np.linspace(60000, 100, 1000).round(), first=500)]
    tables[0].ModalityLUTType = "US"
    image = dataset(ModalityLUTSequence=tables)
    shown = apply_modality_lut(image.pixel_array, image).astype(float)
    assert (image.pixel_array < 500).any()
    np.testing.assert_allclose(decoded(content(image)), scaled(shown, shown.min(), shown.max()), atol=0.51)
    above = [table(np.arange(1000), first=40000)]
    assert decoded(dicom(ModalityLUTSequence=above)).max() == 0  # all of them take the entry 0


def test_one_warning_for_many_images(tmp_path):
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.dcm"))
        (tmp_path / f"{number}.dcm").write_bytes(dicom(**RADIOGRAPH))
    notes = decode_files(paths, FORM).notes
    assert [place for place, _ in notes] == [0, 1, 2]
    assert len({text for _, text in notes}) == 1


BORDER = np.zeros((16, 16), bool)
BORDER[:, :4] = True


def padded(value, dtype):
    return np.where(BORDER, np.array(value).astype(dtype), (RAMP // 2 + 100).astype(dtype))


PADDED = {
    "CT": (padded(-2000, np.int16), {"PixelPaddingValue": -2000}),
    "as unsigned": (padded(-2000, np.int16), {"PixelPaddingValue": 63536}),
    "in unsigned pixels": (padded(63536, np.uint16), {"PixelPaddingValue": 63536}),
    "0": (padded(0, np.uint16), {"PixelPaddingValue": 0}),
    "white": (padded(65535, np.uint16), {"PixelPaddingValue": 65535}),
    "bits that pixels must not use": (
        padded(63536, np.uint16),
        {"PixelPaddingValue": 63536, "BitsStored": 12, "HighBit": 11},
    ),
    "range": (
        np.where(RAMP % 16 == 0, padded(-2000, np.int16), padded(-1990, np.int16)),
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980},
    ),
    "range downwards": (
        np.where(RAMP % 16 == 0, padded(5, np.uint16), padded(0, np.uint16)),
        {"PixelPaddingValue": 5, "PixelPaddingRangeLimit": 0},
    ),
}


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_padding_is_black_and_no_part_of_the_range(name, photometric, syntax):
    pixels, said = PADDED[name]
    if syntax == RLELossless and "bits" in name:
        pytest.skip("an encoder refuses such pixels")
    image = dataset(pixels, syntax=syntax, PhotometricInterpretation=photometric)
    for keyword, value in said.items():
        if keyword.startswith("PixelPadding"):
            kind = "SS" if value < 0 else "US"
            image.add_new(keyword, kind, value)
        else:
            setattr(image, keyword, value)
    found = decoded(content(image))
    tissue = (RAMP // 2 + 100).astype(float)
    expected = scaled(tissue, tissue[~BORDER].min(), tissue[~BORDER].max())
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(found - np.where(BORDER, 0, expected)).max() <= 0.51


def test_an_image_that_is_nothing_but_padding_is_black():
    assert decoded(dicom(np.full((16, 16), 9, np.int16), PixelPaddingValue=9)).max() == 0


def without_preamble(data):
    return data[132:]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_dicom_without_preamble(syntax, meta):
    image = dataset(syntax=syntax)
    data = content(image)[132:]
    if not meta:
        first = b"\x00\x08\x00\x16" if syntax == ExplicitVRBigEndian else b"\x08\x00\x16\x00"
        data = data[data.index(first) :]
    assert np.abs(decoded(data) - reference()).max() <= 0.51


FRAMES = np.stack([RAMP, RAMP[::-1], np.roll(RAMP, 3)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("said", [3, None, 1, "absent"])
def test_frames_are_counted_and_one_is_chosen(syntax, said):
    image = dataset(FRAMES, syntax=syntax, NumberOfFrames=3)
    if said == "absent":
        del image.NumberOfFrames
    else:
        image.NumberOfFrames = said
    data = content(image)
    with pytest.raises(InputError, match=r"has several frames \(3\): choose one"):
        decoded(data)
    for frame in (1, 2, 3):
        found = decoded(data, Form(size=16, frame=frame))
        assert np.abs(found - scaled(FRAMES[frame - 1].astype(float), 0, 2040)).max() <= 0.51
    with pytest.raises(InputError, match="has 3 frames, not 4"):
        decoded(data, Form(size=16, frame=4))
    one = dicom(syntax=syntax)
    assert (decoded(one, Form(size=16, frame=2)) == decoded(one)).all()


def macro(sequence, **attributes):
    groups, item = Dataset(), Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    setattr(groups, sequence, [item])
    return groups


def test_what_a_file_of_several_frames_says_of_one_of_them():
    rescale = macro("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024)
    windows = [macro("FrameVOILUTSequence", WindowCenter=c, WindowWidth=1001) for c in (0, 300, 900)]
    image = dataset(
        FRAMES,
        NumberOfFrames=3,
        SharedFunctionalGroupsSequence=[rescale],
        PerFrameFunctionalGroupsSequence=windows,
    )
    for frame, centre in enumerate((0, 300, 900)):
        found = decoded(content(image), Form(size=16, frame=frame + 1))
        expected = scaled(FRAMES[frame] - 1024.0, centre - 500.5, centre + 499.5)
        assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(("entry_bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_palette_colour(entry_bits, kind):
    image = dataset((RAMP // 8).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    ramps = {"Red": np.arange(256), "Green": np.full(256, 9), "Blue": np.arange(256)[::-1]}
    for colour, ramp in ramps.items():
        setattr(image, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, entry_bits])
        entries = (ramp * (257 if entry_bits == 16 else 1)).astype(kind)
        setattr(image, f"{colour}PaletteColorLookupTableData", entries.tobytes())
    expected = apply_color_lut(image.pixel_array, image) / (257 if entry_bits == 16 else 1)
    found = decode_bytes(content(image), Form(size=16, channels=3)).transpose(1, 2, 0)
    assert np.abs(found - expected).max() <= 0.51


def test_colours_of_sixteen_bits():
    pixels = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1) * 32
    image = dataset(pixels[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    image.PixelData = pixels.tobytes()
    found = decode_bytes(content(image), Form(size=16, channels=3)).transpose(1, 2, 0)
    assert np.abs(found - pixels / 257).max() <= 0.51


@pytest.mark.parametrize(
    ("keyword", "value", "rows"),
    [
        ("PixelSpacing", [2, 1], 16),
        ("PixelSpacing", [0.5, 1], 4),
        ("ImagerPixelSpacing", [2.0, 1.0], 16),
        ("PixelAspectRatio", [2, 1], 16),
        ("PixelSpacing", [1, 1], 8),
        ("PixelSpacing", [0, 1], 8),
    ],
)
def test_pixels_that_are_not_square_are_placed_by_their_spacing(keyword, value, rows):
    image = dataset(np.full((8, 16), 900, np.uint16), WindowCenter=500, WindowWidth=100, **{keyword: value})
    found = decoded(content(image))
    assert (found > 0).any(axis=1).sum() == rows
    assert (found > 0).any(axis=0).sum() == 16


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_what_an_image_cannot_do_without_is_named(keyword):
    with pytest.raises(InputError, match=f"is damaged .it has no {keyword}"):
        decoded(dicom(without=[keyword]))


def claiming(syntax, width, height):
    """A frame of 64 x 64 whose codestream claims another size."""
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    if syntax == JPEG2000Lossless:
        data = bytearray(content(dataset(pixels, syntax=syntax)))
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        return bytes(data)
    buffer = io.BytesIO()
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(buffer, "JPEG")
    stream = bytearray(buffer.getvalue())
    at = stream.index(b"\xff\xc0") + 5
    stream[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    image = dataset((pixels >> 4).astype(np.uint8))
    image.PixelData = pydicom.encaps.encapsulate([bytes(stream)])
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return content(image)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_codestream_that_claims_another_size_is_refused_before_it_is_decoded(syntax):
    pytest.importorskip("openjpeg", reason="the extra `dicom` is not installed")
    assert decoded(claiming(syntax, 64, 64)).shape == (16, 16)
    with pytest.raises(InputError, match="its codestream has 60000 x 50000 pixels of 1 samples, not 64 x 64"):
        decoded(claiming(syntax, 60000, 50000))


def test_a_deflated_data_set_that_grows_too_large_is_refused(monkeypatch):
    data = content(dataset(syntax=DeflatedExplicitVRLittleEndian))
    assert np.abs(decoded(data) - reference()).max() <= 0.51
    monkeypatch.setattr(codestream, "_MOST_BYTES", 500)
    with pytest.raises(InputError, match=r"is too large .more than 500 bytes"):
        decoded(data)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_the_bits_that_count_may_lie_higher(high, signed):
    """12 bits whose highest is not bit 11, as older devices wrote them, among bits that mean nothing."""
    values = RAMP.astype(np.int64) * 2 - (2048 if signed else 0)
    words = (values & 0xFFF) << (high - 11)
    words |= np.random.default_rng(0).integers(0, 1 << 16, words.shape) & ~(0xFFF << (high - 11)) & 0xFFFF
    image = dataset(words.astype(np.uint16), BitsStored=12, HighBit=high, PixelRepresentation=int(signed))
    expected = scaled(values, values.min(), values.max())
    assert np.abs(decoded(content(image)) - expected).max() <= 0.51


@pytest.mark.parametrize(("rest", "said"), [(0, False), (2, True), (64, True)])
def test_bytes_behind_the_last_pixel_are_warned_of(rest, said):
    image = dataset()
    image.PixelData = image.PixelData + b"\0" * rest
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_bytes(content(image), FORM)
    found = [str(each.message).partition(" (")[0] for each in caught if each.category is ImageWarning]
    assert found == ["an image has bytes behind its last pixel"] * said
