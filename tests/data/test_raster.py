"""Kinds of image files, how they are turned and placed, against Pillow's own full decode."""

import io
import math
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, features

from fairdx.core.errors import InputError
from fairdx.data import decode
from fairdx.data.decode import Form, ImageWarning, decode_bytes, decode_files

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 40), np.uint8)
DEEP = RNG.integers(0, 65536, (24, 40), np.uint16)
COLOUR = RNG.integers(0, 256, (24, 40, 3), np.uint8)
FORM = Form(size=40, geometry="pad")


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch):
    monkeypatch.setattr(decode, "_warned", set())


def encode(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def upright(data):
    """What Pillow makes of the file, as (H, W, channels), without what surrounds it."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "PNG of 16 bits", "colour PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation_as_pillow_does_it(orientation, kind):
    pixels = {"PNG of 16 bits": DEEP, "colour PNG": COLOUR, "WEBP": COLOUR}.get(kind, GREY)
    name = kind.split()[0] if kind != "colour PNG" else "PNG"
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    data = encode(pixels, name, exif=exif(orientation), **options)
    expected = upright(data)
    channels = 3 if expected.ndim == 3 else 1
    found = decode_bytes(data, Form(size=40, channels=channels)).transpose(1, 2, 0).astype(float)
    rows, columns = expected.shape[:2]
    top, left = (40 - rows) // 2, (40 - columns) // 2
    shown = found[top : top + rows, left : left + columns]
    reference = expected.reshape(rows, columns, channels) / (257 if kind == "PNG of 16 bits" else 1)
    assert np.abs(shown - reference).max() <= (2 if kind == "JPEG" else 0.51)
    assert found.sum() == shown.sum()


def test_orientation_in_xmp_and_in_old_notes():
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", xmp)
    data = encode(GREY, pnginfo=notes)
    assert (decode_bytes(data, FORM)[0][:, 8:32] == np.rot90(GREY, -1)).all()
    old = PngImagePlugin.PngInfo()
    body = exif(3).tobytes()
    old.add_text("Raw profile type exif", f"\nexif\n{len(body):8d}\n{body.hex()}\n", zip=True)
    assert (decode_bytes(encode(GREY, pnginfo=old), FORM)[0][8:32] == GREY[::-1, ::-1]).all()


@pytest.mark.parametrize("body", [b"XXXXXXXX", b"II*\0", b"MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\2ab\0\0"])
def test_exif_that_cannot_be_read_is_no_damage_of_the_pixels(body):
    with pytest.warns(ImageWarning, match="EXIF that cannot be read"):
        found = decode_bytes(encode(GREY, exif=b"Exif\0\0" + body), FORM)
    assert (found[0][8:32] == GREY).all()


@pytest.mark.parametrize("note", ["profile", "text", "compressed text", "international text"])
def test_a_png_with_over_a_mebibyte_of_notes_is_good(note):
    words = "".join(map(chr, RNG.integers(32, 127, 3 << 20)))
    notes = PngImagePlugin.PngInfo()
    options = {"pnginfo": notes}
    if note == "profile":
        options = {"icc_profile": words.encode()}
    elif note == "international text":
        notes.add_itxt("Comment", words, zip=True)
    else:
        notes.add_text("Comment", words, zip=note == "compressed text")
    data = encode(GREY, **options)
    assert len(data) > 1 << 20
    assert (decode_bytes(data, FORM)[0][8:32] == GREY).all()
    with pytest.raises(InputError, match="is damaged"):
        decode_bytes(data[:-20], FORM)


SIZES = [(w, h) for w in (900, 713, 640, 500, 350, 1023) for h in (713, 512, 397, 260, 999)]


@pytest.mark.parametrize("geometry", ["pad", "crop"])
@pytest.mark.parametrize("size", [128, 64, 100])
def test_a_reduced_jpeg_lies_where_the_full_one_lies(size, geometry):
    """As a PNG of the same picture; a bright frame shows where it ends."""
    for width, height in SIZES:
        x = np.linspace(0, 255, width)[None] * np.ones((height, 1))
        picture = np.uint8(60 + x / 2)
        form = Form(size=size, geometry=geometry)
        full = decode_bytes(encode(picture), form)[0].astype(int)
        reduced = decode_bytes(encode(picture, "JPEG", quality=95), form)[0].astype(int)
        assert ((full > 0) == (reduced > 0)).all(), (width, height)
        assert np.abs(full - reduced).mean() < 1, (width, height)


def test_the_case_of_the_report():
    picture = np.full((713, 900), 200, np.uint8)
    for kind in ("JPEG", "PNG"):
        assert (decode_bytes(encode(picture, kind), Form(size=128))[0] > 0).any(axis=1).sum() == 101


JPEG = encode(GREY, "JPEG", quality=95)
ODD = JPEG[:-2] + bytes(50) + JPEG[-2:]  # the decoder reads some bytes ahead


def test_odd_bytes_before_the_end_of_a_jpeg(tmp_path):
    with pytest.raises(
        InputError, match=r"odd bytes behind its last pixel \(\d+\), and all .* on-error warn"
    ):
        decode_bytes(ODD, FORM)
    lenient = Form(size=40, lenient=True)
    with pytest.warns(ImageWarning, match="odd bytes behind its last pixel"):
        found = decode_bytes(ODD, lenient)
    assert (found == decode_bytes(JPEG, FORM)).all()
    for damaged in (JPEG[: len(JPEG) // 2] + b"\xff\xd9", JPEG[: len(JPEG) // 2]):
        with pytest.raises(InputError, match="is damaged"):
            decode_bytes(damaged, lenient)
    (tmp_path / "odd.jpg").write_bytes(ODD)
    assert decode_files([str(tmp_path / "odd.jpg")], lenient).notes[0][0] == 0


def test_one_warning_for_all_images():
    lenient = Form(size=40, lenient=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            decode_bytes(ODD, lenient)
    assert len(caught) == 1


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_tiff(compression):
    options = {} if compression is None else {"compression": compression}
    assert (decode_bytes(encode(GREY, "TIFF", **options), FORM)[0][8:32] == GREY).all()
    found = decode_bytes(encode(DEEP, "TIFF", **options), FORM)[0][8:32]
    assert np.abs(found - DEEP / 257).max() <= 0.51
    colours = decode_bytes(encode(COLOUR, "TIFF", **options), Form(size=40, channels=3))
    assert (colours[:, 8:32].transpose(1, 2, 0) == COLOUR).all()
    twelve = (DEEP >> 4).astype(np.uint16)
    found = decode_bytes(encode(twelve, "TIFF", **options), Form(size=40, bits=12))[0][8:32]
    assert np.abs(found - twelve * (255 / 4095)).max() <= 0.51


def test_tiff_that_has_no_one_way_to_be_shown():
    with pytest.raises(InputError, match="has the colours F, not grey or RGB"):
        decode_bytes(encode(GREY.astype(np.float32), "TIFF"), FORM)
    with pytest.raises(InputError, match="has the colours I"):
        decode_bytes(encode(GREY.astype(np.int32), "TIFF"), FORM)


def test_white_is_zero_in_some_tiff():
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 0
    data = encode(GREY, "TIFF", tiffinfo=info)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert (decode_bytes(data, FORM)[0][8:32] == expected).all()


def test_white_is_zero_in_deep_tiff_too_and_12_bits_are_12():
    """Tags written by hand around the same values: Pillow inverts those of 8 bits alone."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 0
    found = decode_bytes(encode(DEEP, "TIFF", tiffinfo=info), FORM)[0][8:32]
    assert np.abs(found - (255 - DEEP / 257)).max() <= 0.51
    values = (DEEP >> 4).astype(int)
    bits = "".join(f"{value:012b}" for value in values.ravel())
    packed = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    found = decode_bytes(tiff(packed, values.shape, bits=12, photometric=1), FORM)[0][8:32]
    assert np.abs(found - values * (255 / 4095)).max() <= 0.51


def test_tiff_of_signed_values_is_refused():
    signed = (GREY.astype(int) - 128).astype(np.int8)
    data = tiff(signed.tobytes(), GREY.shape, bits=8, photometric=1, sample_format=2)
    with pytest.raises(InputError, match="can be below 0"):
        decode_bytes(data, FORM)


def tiff(data, shape, *, bits, photometric, sample_format=1):
    """A grey TIFF of one strip, without Pillow."""
    tags = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: shape[0]}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return start + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
def test_webp():
    data = encode(COLOUR, "WEBP", lossless=True)
    assert (decode_bytes(data, Form(size=40, channels=3))[:, 8:32].transpose(1, 2, 0) == COLOUR).all()


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_files_of_several_images(kind):
    pages = [Image.fromarray(np.full((24, 40, 3), 60 * n, np.uint8)) for n in (1, 2, 3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(pages[0], kind, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(InputError, match=r"has several frames \(3\): choose one"):
        decode_bytes(data, FORM)
    for frame in (1, 2, 3):
        assert decode_bytes(data, Form(size=40, frame=frame))[0, 20, 20] == 60 * frame


def test_the_scale_of_a_reduced_jpeg_is_found_for_every_size():
    from fairdx.data.raster import _scale

    for width in range(1, 70):
        for eighths in range(1, 9):
            size = math.ceil(width * eighths / 8), math.ceil(99 * eighths / 8)
            assert _scale((width, 99), size) == eighths / 8
