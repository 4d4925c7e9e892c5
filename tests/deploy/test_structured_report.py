"""Reports read back by pydicom and highdicom."""

import pytest

pytest.importorskip("highdicom", reason="the extra `dicom-sr` is not installed")
import highdicom
import pandas as pd
import pydicom
from pydicom.sr.codedict import codes

from fairdx.core.errors import InputError
from fairdx.deploy.predict import PredictOptions, predict
from fairdx.models.card import Range

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def reports_of(folder):
    return [highdicom.sr.srread(path) for path in sorted(folder.iterdir())]


def values_of(report):
    """The only group of measurements: measurements and evaluations by the meaning of their names."""
    (group,) = report.content.get_image_measurement_groups()
    measured = {m.name.meaning: float(m.value) for m in group.get_measurements()}
    evaluated = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    return group, measured, evaluated


def test_a_report_of_each_dicom_image(tmp_path, model, write_model, write_dicom, write_grey):
    write_dicom(tmp_path / "in" / "a.dcm", 51, SOPInstanceUID="1.2.3.5")
    write_dicom(tmp_path / "in" / "b.dcm", 204, SOPInstanceUID="1.2.3.6")
    write_grey(tmp_path / "in" / "c.png", 7)
    options = PredictOptions(reports=tmp_path / "sr")
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", options)
    assert (outcome.record.scored, outcome.record.reports, outcome.record.broken) == (3, 2, 0)
    reports = {r.content.get_image_measurement_groups()[0].source_images[0].referenced_sop_instance_uid: r
               for r in reports_of(tmp_path / "sr")}  # fmt: skip
    assert set(reports) == {"1.2.3.5", "1.2.3.6"}
    rows = pd.read_csv(tmp_path / "scores.csv").set_index("SOPInstanceUID")
    for instance, report in reports.items():
        assert report.SOPClassUID == COMPREHENSIVE_3D_SR
        assert report.Modality == "SR"
        assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        assert "VerifyingObserverSequence" not in report
        assert (str(report.PatientName), report.PatientID) == ("Müller^Jörg", "patient-17")
        assert (report.PatientBirthDate, report.PatientSex, report.StudyDate) == ("19600301", "F", "20200228")
        assert (report.StudyInstanceUID, report.AccessionNumber) == ("1.2.3", "A1")
        assert report.SeriesInstanceUID != "1.2.3.1"
        (referenced,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        assert referenced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == instance
        _, measured, evaluated = values_of(report)
        assert measured["Probability of ill"] == pytest.approx(rows.loc[instance, "score"], abs=1e-9)
        assert measured["Threshold Value"] == 0.5
        assert evaluated["Decision on finding"] == ("ill" if instance == "1.2.3.6" else "healthy")
    assert reports["1.2.3.5"].SOPInstanceUID != reports["1.2.3.6"].SOPInstanceUID
    assert reports["1.2.3.5"].SeriesInstanceUID == reports["1.2.3.6"].SeriesInstanceUID


def test_another_model_is_another_device(tmp_path, write_model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    devices = {}
    for name, mask in (("masked", {}), ("plain", {"mask": None})):
        folder, card = write_model(tmp_path / name, **mask)
        options = PredictOptions(reports=tmp_path / f"sr-{name}")
        predict(folder, [str(tmp_path / "in")], tmp_path / f"{name}.csv", options)
        (report,) = reports_of(tmp_path / f"sr-{name}")
        (context,) = [
            context for context in report.content.get_observer_contexts()
            if context.observer_type == codes.DCM.Device
        ]  # fmt: skip
        device = context.observer_identifying_attributes
        group, _, _ = values_of(report)
        algorithm = {item.name.meaning: item.value for item in group[0].ContentSequence
                     if item.name.meaning.startswith("Algorithm")}  # fmt: skip
        assert algorithm["Algorithm Name"] == "fairdx fair_diagnosis: finding"
        assert algorithm["Algorithm Version"] == card.identity
        assert device.uid == report.DeviceUID
        assert device.serial_number == card.identity
        devices[name] = device.uid
    assert devices["masked"] != devices["plain"]
    assert all(pydicom.uid.UID(uid).is_valid for uid in devices.values())


def test_several_classes_cautions_and_any_language(tmp_path, write_model, write_dicom):
    folder, _ = write_model(
        tmp_path / "model", classes=("gesund", "Erguß", "肺炎"), familiar={"mean": Range(low=0.5, high=0.6)}
    )
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    predict(folder, [str(tmp_path / "in")], tmp_path / "s.csv", PredictOptions(reports=tmp_path / "sr"))
    (report,) = reports_of(tmp_path / "sr")
    _, measured, evaluated = values_of(report)
    row = pd.read_csv(tmp_path / "s.csv").iloc[0]
    for name in ("gesund", "Erguß", "肺炎"):
        assert measured[f"Probability of {name}"] == pytest.approx(row[f"score_{name}"], abs=1e-9)
    assert "Threshold Value" not in measured
    assert evaluated["Decision on finding"] == "肺炎"
    assert "darker" in evaluated.values()
    assert str(report.PatientName) == "Müller^Jörg"


def test_images_that_a_report_cannot_refer_to_are_listed(tmp_path, model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 51, StudyInstanceUID=None)
    write_dicom(tmp_path / "in" / "b.dcm", 51, PatientName=None, StudyID=None, PatientBirthDate=None)
    options = PredictOptions(reports=tmp_path / "sr")
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", options)
    assert (outcome.record.scored, outcome.record.reports, outcome.record.broken) == (2, 1, 1)
    errors = pd.read_csv(tmp_path / "scores.csv.errors.csv")
    assert errors["path"].tolist() == [str(tmp_path / "in" / "a.dcm")]
    assert "was scored, but there is no report" in errors["reason"][0]
    assert "StudyInstanceUID" in errors["reason"][0]


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_finished_table_without_its_reports_does_not_pass_for_one_with_them(
    tmp_path, model, write_dicom, elsewhere
):
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    write_dicom(tmp_path / "in" / "again.dcm", 51)  # the same image: one report
    write_dicom(tmp_path / "in" / "b.dcm", 51, SOPInstanceUID="1.2.3.7")
    write_dicom(tmp_path / "in" / "c.dcm", 51, SOPInstanceUID="1.2.3.8", StudyInstanceUID=None)  # none
    given = model, [str(tmp_path / "in")], tmp_path / "scores.csv"
    predict(*given, PredictOptions(reports=tmp_path / "sr"))
    first, *_ = (tmp_path / "sr").iterdir()
    assert predict(*given, PredictOptions(reports=tmp_path / "sr")).record.scored == 4
    if not elsewhere:
        first.unlink()
    with pytest.raises(InputError, match=f"has {0 if elsewhere else 1} of its 2 DICOM reports"):
        predict(*given, PredictOptions(reports=tmp_path / ("other" if elsewhere else "sr")))


def test_the_same_report_is_not_written_twice(tmp_path, model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    options = PredictOptions(reports=tmp_path / "sr")
    predict(model, [str(tmp_path / "in")], tmp_path / "one.csv", options)
    (first,) = (tmp_path / "sr").iterdir()
    before = first.read_bytes()
    predict(model, [str(tmp_path / "in")], tmp_path / "two.csv", options)
    assert [path.read_bytes() for path in (tmp_path / "sr").iterdir()] == [before]


def test_reports_among_the_images_are_refused(tmp_path, model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    options = PredictOptions(reports=tmp_path / "in" / "sr")
    with pytest.raises(InputError, match="choose a folder outside"):
        predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", options)


def test_reports_by_several_processes(tmp_path, model, write_dicom):
    for number in range(40):
        write_dicom(tmp_path / "in" / f"{number:03}.dcm", number, SOPInstanceUID=f"1.2.3.{number + 5}")
    options = PredictOptions(reports=tmp_path / "sr", workers=2, batch_size=4)
    predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", options)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table["score"].tolist() == pytest.approx([n / 255 for n in range(40)], abs=2e-6)
    assert len(list((tmp_path / "sr").iterdir())) == 40


def test_a_folder_of_reports_that_cannot_be_made_is_named(tmp_path, model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    (tmp_path / "sr").write_text("precious")
    with pytest.raises(InputError, match=rf"cannot write to {tmp_path / 'sr'}: "):
        predict(
            model, [str(tmp_path / "in")], tmp_path / "scores.csv", PredictOptions(reports=tmp_path / "sr")
        )
    assert (tmp_path / "sr").read_text() == "precious"
