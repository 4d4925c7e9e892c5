"""DICOM back: for each DICOM image a Comprehensive 3D SR after template TID 1500, by highdicom.

Patient and study are copied from the image. The report says that software made it and that nobody signed it.
The device that observes is the model: its UID comes from the identity on the card, so that a masked model
is another device than the model behind the mask.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fairdx.core.errors import InputError
from fairdx.core.files import write_whole
from fairdx.data.dicom import require_pydicom

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEME: Final = "99FAIRDX"
"""Coding scheme of what no public one has a code for; 99 marks those as private (DICOM part 3, 8.2)."""
SERIES_NUMBER: Final = 9000
_IDENTITY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime",
)  # fmt: skip
"""Attributes of type 2: what the image leaves out is empty in the report."""
_REFERENCE: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Device:
    """The model as a device: what a report says of whoever made it."""

    identity: str
    """Of the model's card."""
    fairdx: str
    """Version that predicts."""
    method: str
    """How the model was made fair."""
    label: str
    """What it finds."""
    classes: tuple[str, ...]
    """The classes of the label."""
    parameters: tuple[str, ...]
    """Further facts, as `eta=0.1`."""

    @property
    def uid(self) -> str:
        """The device's UID."""
        return uid_of("device", self.identity)


@dataclass(frozen=True)
class Result:
    """What a report says of one image."""

    scores: tuple[float, ...]
    """P(Y = 1); or of each class, with more than two."""
    decision: int
    """Code of the class decided on."""
    threshold: float | None
    """Positive from this score on."""
    change: float
    """Mean absolute change by the mask, in [0, 1]."""
    cautions: tuple[str, ...]
    """In what the image differs from the training images."""


def uid_of(*parts: str) -> str:
    """Make a UID that is the same whenever it is made from the same.

    Args:
        parts: What it is made from.

    Returns:
        A UID below 2.25, that is made from a UUID (DICOM part 5, B.2).
    """
    digest = hashlib.sha256("\0".join(("fairdx", *parts)).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def require_highdicom() -> Any:
    """Import highdicom.

    Returns:
        The module.

    Raises:
        InputError: It is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise InputError("DICOM reports need highdicom: pip install 'fairdx[dicom-sr]'") from None
    return highdicom


def write_report(path: str, result: Result, device: Device, folder: Path) -> Path:
    """Write the report of one image, unless it is there already.

    Args:
        path: The DICOM file.
        result: What to say of it.
        device: Who says it.
        folder: Where to write; the file is named after the report's UID.

    Returns:
        The file of the report.

    Raises:
        InputError: The image has no identity that a report could refer to, or highdicom refuses it; the
            message lacks the file's name.
    """
    evidence = _evidence(path)
    instance = uid_of("report", evidence.SOPInstanceUID, device.identity, device.fairdx, repr(result))
    file = folder / f"{instance}.dcm"
    if not file.exists():  # written whole, and the same UID has to be the same report
        try:
            write_whole(file, _encoded(_report(evidence, instance, result, device)))
        except OSError:
            raise
        except Exception as error:  # values that highdicom or pydicom refuse raise almost anything
            raise InputError(f"has a header that no report can be made from ({error})") from error
    return file


def _evidence(path: str) -> Any:
    """The image's header, whole: highdicom copies from it all that is about patient and study."""
    pydicom = require_pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True)
            missing = [keyword for keyword in _REFERENCE if not header.get(keyword)]
            for keyword in _IDENTITY:
                if keyword not in header:
                    setattr(header, keyword, None)
    except Exception as error:  # damaged bytes make the parser raise almost anything
        raise InputError(f"has a header that cannot be read again ({error})") from error
    if missing:
        raise InputError(f"has no {missing[0]}, which a report needs to refer to it")
    return header


def _report(evidence: Any, instance: str, result: Result, device: Device) -> Any:
    hd = require_highdicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd values that the image brought along
        report = hd.sr.Comprehensive3DSR(
            evidence=[evidence],
            content=_content(evidence, instance, result, device),
            series_instance_uid=uid_of("series", evidence.StudyInstanceUID, device.identity),
            series_number=SERIES_NUMBER,
            series_description=f"fairdx: {device.label}"[:64],
            sop_instance_uid=instance,
            instance_number=1,
            manufacturer="fairdx",
            manufacturer_model_name=device.method[:64],
            software_versions=device.fairdx,
            device_serial_number=device.identity,
            specific_character_set="ISO_IR 192",  # classes may be named in any language
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        report.DeviceUID = device.uid
        return report


def _content(evidence: Any, instance: str, result: Result, device: Device) -> Any:
    """The tree of TID 1500: who observed, and one group of measurements of the image."""
    hd = require_highdicom()
    from pydicom.sr.codedict import codes

    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=device.uid,
            name=f"fairdx {device.method}: {device.label}",
            manufacturer_name="fairdx",
            model_name=device.method,
            serial_number=device.identity,
        ),
    )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=uid_of("tracking", instance), identifier=device.label
        ),
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=f"fairdx {device.method}: {device.label}",
            version=device.identity,
            manufacturer="fairdx",
            family=codes.DCM.ArtificialIntelligence,
            parameters=[f"fairdx={device.fairdx}", *device.parameters],
        ),
        measurements=_measurements(result, device),
        qualitative_evaluations=_evaluations(result, device),
        source_images=[hd.sr.SourceImageForMeasurementGroup(evidence.SOPClassUID, evidence.SOPInstanceUID)],
    )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _measurements(result: Result, device: Device) -> list[Any]:
    hd = require_highdicom()
    from pydicom.sr.codedict import codes

    unit = codes.UCUM.NoUnits
    codes_of_scores = range(len(device.classes)) if len(result.scores) > 1 else [1]
    found = [
        hd.sr.Measurement(_code(f"score-{code}", f"Probability of {device.classes[code]}"), score, unit)
        for code, score in zip(codes_of_scores, result.scores, strict=True)
    ]
    if result.threshold is not None:
        found.append(hd.sr.Measurement(codes.DCM.ThresholdValue, result.threshold, unit))
    change = _code("mask-change", "Mean absolute change of the image by the mask")
    return [*found, hd.sr.Measurement(change, result.change, unit)]


def _evaluations(result: Result, device: Device) -> Sequence[Any]:
    hd = require_highdicom()
    decided = _code(f"class-{result.decision}", device.classes[result.decision])
    evaluations = [hd.sr.QualitativeEvaluation(_code("decision", f"Decision on {device.label}"), decided)]
    for words in result.cautions:
        what = _code("caution", "Unlike the images that the mask was trained on")
        evaluations.append(hd.sr.QualitativeEvaluation(what, _code(words.replace(" ", "-"), words)))
    return evaluations


def _code(value: str, meaning: str) -> Any:
    """A code of our own scheme; values have at most 16 characters and meanings 64."""
    return require_highdicom().sr.CodedConcept(value[:16], SCHEME, meaning[:64])


def _encoded(report: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
