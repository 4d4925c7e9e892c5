import io
import os
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from scipy.ndimage import gaussian_filter, zoom

from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_bytes, decode_file


def smooth(height, width, seed=0):
    """A picture with structure at several scales, uint8 over the whole range."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    picture = sum(gaussian_filter(noise, s) * s for s in (2, 8, 32))
    return np.uint8((picture - picture.min()) / np.ptp(picture) * 255)


def encode(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = smooth(64, 64)
COLOUR = np.stack([smooth(64, 64, seed) for seed in (1, 2, 3)], axis=-1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 12)])
def test_same_size_keeps_the_pixels(channels, kind, tolerance):
    form = Form(size=64, channels=channels)
    grey = decode_bytes(encode(GREY, kind, **({"quality": 95} if kind == "JPEG" else {})), form)
    assert grey.shape == (channels, 64, 64)
    assert np.abs(grey.astype(int) - GREY).max() <= tolerance
    colour = decode_bytes(encode(COLOUR), form)
    # ITU-R 601: the weights of red, green and blue in luma.
    expected = (COLOUR @ [0.299, 0.587, 0.114])[None] if channels == 1 else COLOUR.transpose(2, 0, 1)
    assert np.abs(colour - expected).max() <= 1


def test_sixteen_bits_are_scaled_by_their_range():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    assert np.abs(decode_bytes(encode(ramp), Form(size=64))[0] - ramp / 257).max() <= 0.51
    twelve = (ramp >> 4).astype(np.uint16)
    assert (
        np.abs(decode_bytes(encode(twelve), Form(size=64, bits=12))[0] - twelve * (255 / 4095)).max() <= 0.51
    )
    with pytest.raises(InputError, match=r"has larger values than bits=12 can hold .65535"):
        decode_bytes(encode(ramp), Form(size=64, bits=12))


def colour16():
    """Pillow writes no 16-bit colour, so by hand: one row of one pixel, in big-endian samples."""

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    pixels = bytes([0]) + b"".join(v.to_bytes(2, "big") for v in (65535, 32768, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bit_colour():
    assert decode_bytes(colour16(), Form(size=8, channels=3))[:, 4, 4].tolist() == [255, 128, 0]
    with pytest.raises(InputError, match="16-bit colour PNG, for which bits=12"):
        decode_bytes(colour16(), Form(size=8, channels=3, bits=12))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_other_png_modes(mode):
    image = Image.fromarray(GREY).convert(mode)
    expected = np.asarray(image.convert("L"))
    assert (decode_bytes(encode(image), Form(size=64))[0] == expected).all()


def test_transparency_is_refused_and_an_opaque_palette_is_not():
    see_through = Image.fromarray(COLOUR).convert("RGBA")
    see_through.putpixel((3, 4), (10, 20, 30, 254))
    with pytest.raises(InputError, match="transparent"):
        decode_bytes(encode(see_through), Form(size=64))


def test_cmyk_is_refused():
    with pytest.raises(InputError, match="colours CMYK"):
        decode_bytes(encode(Image.new("CMYK", (8, 8)), "JPEG"), Form(size=8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("width", "height"), [(128, 64), (64, 128)])
def test_geometry(kind, width, height):
    wide = width > height
    pixels = np.full((height, width), 200, np.uint8)
    centre = pixels[:, 32:96] if wide else pixels[32:96]
    centre[:] = 100
    data = encode(pixels, kind)
    turn = (lambda image: image) if wide else np.transpose
    padded = turn(decode_bytes(data, Form(size=32, geometry="pad"))[0])
    assert (padded[:8] == 0).all()
    assert (padded[24:] == 0).all()
    assert (padded[8:24] >= 98).all()
    assert (padded[12, [0, 31]] >= 198).all()
    cropped = decode_bytes(data, Form(size=32, geometry="crop"))[0][1:-1, 1:-1]  # the edge blends outwards
    assert np.abs(cropped.astype(int) - 100).max() <= 2
    stretched = turn(decode_bytes(data, Form(size=32, geometry="stretch"))[0])
    assert np.abs(stretched[:, [0, 31]].astype(int) - 200).max() <= 2
    assert np.abs(stretched[:, 16].astype(int) - 100).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(64, 64), (64, 200)])
def test_jpeg_orientation_as_pillow_does_it(orientation, shape):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(*shape), "JPEG", quality=95, exif=exif.tobytes())
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    straight = decode_bytes(data, Form(size=32, geometry="stretch"))
    again = decode_bytes(encode(upright), Form(size=32, geometry="stretch"))
    assert np.abs(straight.astype(int) - again).mean() < 2


def test_reduced_decode_is_close_to_the_full_one():
    picture = smooth(1600, 1300)
    data = encode(picture, "JPEG", quality=90)
    full = np.asarray(Image.open(io.BytesIO(data)).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(decode_bytes(data, Form(geometry="stretch"))[0].astype(int) - full).mean() < 2


def test_enlarging_small_images():
    expected = zoom(GREY.astype(float), 2, order=1, grid_mode=True, mode="nearest")
    for kind in ("PNG", "JPEG"):
        enlarged = decode_bytes(encode(GREY, kind), Form(size=128))[0]
        assert np.abs(enlarged - expected).mean() < 3


PNG, JPEG = encode(GREY), encode(GREY, "JPEG", quality=90)


@pytest.mark.parametrize(
    "data",
    [
        PNG[: len(PNG) // 2],
        PNG[:-12],
        PNG[:-20] + bytes(8) + PNG[-12:],
        PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
        JPEG[: len(JPEG) // 2],
        JPEG[:-2],
        JPEG[: len(JPEG) // 2] + b"\xff\xd9",
        JPEG[: len(JPEG) // 2] + bytes(200) + JPEG[len(JPEG) // 2 + 200 :],
        JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
    ],
    ids=lambda data: f"{data[1:4]!r}-{len(data)}",
)
def test_damage_is_refused_even_where_pillow_was_told_to_be_lenient(data, monkeypatch, tmp_path):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "chest.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path} is damaged"):
        decode_file(path, Form(size=64))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    for name, message in [
        ("none.png", "does not exist"),
        ("empty.png", "is empty"),
        ("text.png", "is not PNG, JPEG, TIFF, WebP, DICOM or NIfTI"),
        ("", "is not a file"),
        ("pipe", "is not a file"),
    ]:
        with pytest.raises(InputError, match=message):
            decode_file(tmp_path / name, Form())


def test_claimed_size_is_checked_before_decoding():
    body = b"IHDR" + (60000).to_bytes(4, "big") * 2 + PNG[24:29]
    bomb = PNG[:12] + body + zlib.crc32(body).to_bytes(4, "big") + PNG[33:]
    with pytest.raises(InputError, match=r"pixels"):
        decode_bytes(bomb, Form())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0 is not possible: give 8 to 4096"),
        ({"channels": 2}, "channels=2"),
        ({"geometry": "padd"}, "geometry='padd' is not possible .did you mean 'pad'"),
        ({"bits": 8}, "bits=8"),
    ],
)
def test_impossible_forms(options, message):
    with pytest.raises(InputError, match=message):
        Form(**options)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(
        [PNG, JPEG, encode(COLOUR, "JPEG"), encode(GREY.astype(np.uint16) * 257), encode(COLOUR)]
    ),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    st.integers(0, 2**16),
)
def test_fuzzed_bytes_give_an_image_or_an_input_error(data, edits, length):
    spoilt = bytearray(data)
    for position, value in edits:
        spoilt[position % len(spoilt)] = value
    spoilt = bytes(spoilt[: length if length % 2 else None])
    try:
        image = decode_bytes(spoilt, Form(size=16, channels=3))
    except InputError:
        return
    assert image.shape == (3, 16, 16)
    assert image.dtype == np.uint8


def test_a_missing_library_is_not_taken_for_a_damaged_image(monkeypatch):
    """Skipping damaged images would otherwise leave out a whole data set without a word."""
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ModuleNotFoundError, match="simplejpeg"):
        decode_bytes(encode(GREY, "JPEG"), Form(size=64, channels=1))
