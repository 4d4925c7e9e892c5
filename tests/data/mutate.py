"""Images with mutated headers, decoded one by one: `python mutate.py SEED COUNT` prints what came of them.

Run in a process of its own, so that its peak of memory is that of the decoding. Not a test by itself.
"""

import io
import json
import random
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_file

PIXELS = np.random.default_rng(0).integers(0, 4096, (3, 64, 64), np.uint16)
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 12, 16, 24, 32, 64, 255, 256, 4095, 32767, 32768, 65535)
TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "1e30",
    "NaN",
    "inf",
    "1\\2\\3",
    "MONOCHROME1",
    "PALETTE COLOR",
    "YBR_FULL",
    "RGB",
    "x" * 70,
)


def dicom_bases():
    """Each transfer syntax, one and several frames, tables, palettes, padding."""
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless)
    bases = [image(syntax, frames) for syntax in syntaxes for frames in (1, 3)]
    bases.append(image(DeflatedExplicitVRLittleEndian, 1))
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    bases.append(image(ExplicitVRLittleEndian, 1, VOILUTSequence=[table], PixelPaddingValue=0))
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = bytes(range(256))
    bases.append(image(ExplicitVRLittleEndian, 1, **palette))
    jpeg = io.BytesIO()
    Image.fromarray((PIXELS[0] >> 4).astype(np.uint8)).save(jpeg, "JPEG")
    bases.append(image(JPEGBaseline8Bit, 1, encapsulated=jpeg.getvalue()))
    return bases


def image(syntax, frames, encapsulated=None, **attributes):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    compressed = syntax in (RLELossless, JPEG2000Lossless)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else syntax
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.NumberOfFrames = 1, "MONOCHROME2", frames
    made.Rows, made.Columns, made.PixelRepresentation = 64, 64, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.WindowCenter, made.WindowWidth, made.RescaleSlope, made.RescaleIntercept = 2000, 3000, 1, 0
    made.PixelSpacing = [0.5, 0.5]
    made.PixelData = PIXELS[:frames].tobytes()
    for name, value in attributes.items():
        setattr(made, name, value)
    if attributes.get("PhotometricInterpretation") == "PALETTE COLOR" or encapsulated:
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit = 7
        made.PixelData = (PIXELS[0] >> 4).astype(np.uint8).tobytes()
    if encapsulated:
        made.PixelData = pydicom.encaps.encapsulate([encapsulated])
        made["PixelData"].VR = "OB"
    if compressed:
        made.compress(syntax)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def mutate_dicom(data, rng):
    """Other values of some attributes, or other bytes anywhere before the pixels and a little into them."""
    if rng.random() < 0.5:
        made = pydicom.dcmread(io.BytesIO(data))
        for _ in range(rng.randint(1, 4)):
            element = rng.choice([e for e in made if e.tag.group == 0x28])
            change(made, element, rng)
        buffer = io.BytesIO()
        try:
            made.save_as(buffer)
            data = buffer.getvalue()
        except Exception:
            pass
    spoilt = bytearray(data)
    for _ in range(rng.randint(0, 6)):
        spoilt[rng.randrange(132, min(len(spoilt), 1200))] = rng.choice((0, 1, 255, rng.randrange(256)))
    return bytes(spoilt[: rng.choice((len(spoilt), len(spoilt), rng.randrange(len(spoilt))))])


def change(made, element, rng):
    chance = rng.random()
    if chance < 0.2:
        del made[element.tag]
    elif element.VR == "SQ":
        for inner in list(element.value[0]):
            if rng.random() < 0.5:
                change(element.value[0], inner, rng)
    elif chance < 0.3:
        element.value = None
    elif element.VR in ("US", "SS"):
        element.value = rng.choice(NUMBERS) if element.VM == 1 else [rng.choice(NUMBERS) for _ in range(3)]
    elif element.VR in ("DS", "IS", "CS"):
        element._value = rng.choice(TEXTS)
    elif element.VR in ("OB", "OW") and element.value:
        element.value = element.value[: rng.randrange(len(element.value))]


def png_bases():
    grey = (PIXELS[0] >> 4).astype(np.uint8)
    pictures = [grey, np.stack([grey] * 3, axis=-1), PIXELS[0] * 16, np.stack([grey] * 4, axis=-1)]
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for picture in (
        *map(Image.fromarray, pictures),
        Image.fromarray(grey).convert("P"),
        Image.new("1", (9, 9)),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", exif=exif, icc_profile=b"p" * 99, dpi=(72, 72))
        made.append(buffer.getvalue())
    return made


def mutate_png(data, rng):
    """Other bytes in the chunks beside the pixels, with checksums that fit."""
    chunks, place = [], 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append([data[place + 4 : place + 8], bytearray(data[place + 8 : place + 8 + length])])
        place += 12 + length
    for _ in range(rng.randint(1, 4)):
        chunk = rng.choice([c for c in chunks if c[0] != b"IEND"])
        if rng.random() < 0.5:
            chunk = chunks[0]
        if rng.random() < 0.15:
            chunk[0] = bytes(rng.choice(b"IDATPLTEtRNSacTLfcTLeXIfiCCPzTXt") for _ in range(4))
        elif chunk[1]:
            chunk[1][rng.randrange(min(len(chunk[1]), 40))] = rng.choice((0, 1, 39, 255, rng.randrange(256)))
    out = data[:8]
    for name, body in chunks:
        length = len(body) if rng.random() < 0.97 else rng.choice((0, 2**31 - 1, 2**32 - 1, len(body) + 1))
        out += (
            struct.pack(">I", length) + name + bytes(body) + struct.pack(">I", zlib.crc32(name + bytes(body)))
        )
    return out


def main(seed, count):
    rng = random.Random(seed)
    kinds = [(mutate_dicom, dicom_bases()), (mutate_png, png_bases())]
    ends, problems, slowest = Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.img"
        for number in range(count):
            mutate, bases = kinds[number % 2]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = mutate(rng.choice(bases), rng)
            path.write_bytes(data)
            form = Form(size=16, channels=rng.choice((1, 3)), frame=rng.choice((None, 1, 2)))
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = decode_file(path, form)
                ends["image"] += 1
                if image.shape != (form.channels, 16, 16) or image.dtype != np.uint8:
                    problems.append(f"{number}: {image.dtype} of shape {image.shape}")
            except InputError as error:
                ends["sentence"] += 1
                if not str(error).startswith(f"{path} ") or "\n" in str(error) or len(str(error)) > 400:
                    problems.append(f"{number}: {error}"[:600])
            except BaseException as error:
                problems.append(f"{number}: {type(error).__name__} {error}"[:300])
            slowest = max(slowest, time.perf_counter() - start)
    # Not `ru_maxrss`: a process begins with that of whoever started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    found = {"ends": ends, "problems": problems, "slowest": slowest, "peak": peak}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
