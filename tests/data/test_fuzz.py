"""Readers and decoders on cells, bytes and headers replaced at random: what it should be, or one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairdx.core.errors import InputError
from fairdx.data.readers import READERS
from fairdx.data.readers.observations import OBSERVATIONS
from fairdx.data.source import check_source

OBSERVED = ",".join(OBSERVATIONS)
BLANK = "," * (len(OBSERVATIONS) - 1)
TABLES = {
    "nih": {
        "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height]\n"
        "1.png,Hernia|Mass,0,1,58,M,PA,2,3\n2.png,No Finding,0,2,9,F,AP,2,3\n"
    },
    "ham10000": {
        "HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "H1,I1,bkl,histo,80.0,male,scalp\nH2,I2,mel,histo,,unknown,ear\n"
    },
    "chexpert": {
        "train.csv": f"Path,Sex,Age,Frontal/Lateral,AP/PA,{OBSERVED}\n"
        f"C/train/patient1/study1/a.jpg,Male,68,Frontal,AP,1.0,-1.0,0.0,{BLANK[3:]}\n"
        f"C/train/patient2/study1/a.jpg,Female,20,Lateral,,{BLANK}\n",
        "valid.csv": f"Path,Sex,Age,Frontal/Lateral,AP/PA,{OBSERVED}\n"
        f"C/valid/patient9/study1/a.jpg,Male,68,Frontal,AP,1.0{BLANK}\n",
    },
    "mimic-cxr": {
        "mimic-cxr-2.0.0-metadata.csv": "dicom_id,subject_id,study_id,ViewPosition,StudyDate\n"
        "aa-1,10000001,50000001,PA,21800506\naa-2,10000002,50000002,AP,21800506\n",
        "mimic-cxr-2.0.0-split.csv": "dicom_id,study_id,subject_id,split\naa-1,5,1,train\naa-2,5,1,test\n",
        "mimic-cxr-2.0.0-chexpert.csv": f"subject_id,study_id,{OBSERVED}\n"
        f"10000001,50000001,1.0{BLANK}\n10000002,50000002,-1.0{BLANK}\n",
        "patients.csv": "subject_id,gender,anchor_age,anchor_year\n10000001,F,52,2180\n10000002,M,52,2180\n",
        "admissions.csv": "subject_id,insurance,race\n10000001,Medicaid,WHITE\n10000002,Medicare,ASIAN\n",
    },
    "tcga-luad": {
        "clinical.tsv": "case_submitter_id\tage_at_index\tgender\trace\tajcc_pathologic_stage\n"
        "T-1\t58\tfemale\twhite\tStage IIB\nT-2\t71\tmale\tasian\tStage IV\n",
        "metadata.csv": "Series UID,Subject ID,Modality,Number of Images,File Location\n"
        "1.2.3,T-1,CT,4,.\\a\\b\n1.2.4,T-2,CT,4,.\\a\\c\n1.2.5,T-2,PT,4,\n",
    },
}
words = st.one_of(
    st.sampled_from(
        ["", ",", "\n", '"', "|", "-1", "2", "nan", "None", "\0", "../", "1e400", "é", "\r", "M", "1.0"]
    ),
    st.text(max_size=4),
)
edits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 4), words), min_size=1, max_size=4)


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_they_are(tmp_path, name):
    for file, content in TABLES[name].items():
        (tmp_path / file).write_text(content)
    check_source(READERS[name](tmp_path))


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits=edits, tail=st.binary(max_size=4), which=st.integers(0, 4))
def test_fuzzed_tables(tmp_path_factory, name, edits, tail, which):
    if name == "tcga-luad":
        pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    root = tmp_path_factory.mktemp("fuzz")
    for file, content in TABLES[name].items():
        (root / file).write_text(content)
    spoilt, text = list(TABLES[name].items())[which % len(TABLES[name])]
    for position, removed, word in edits:
        place = position % (len(text) + 1)
        text = text[:place] + word + text[place + removed :]
    (root / spoilt).write_bytes(text.encode(errors="replace") + tail)
    try:
        source = READERS[name](root)
        check_source(source)
    except InputError:
        return
    # Whatever was accepted has a name for every code and every group, and a patient for every image.
    assert source.table["image"].is_unique
    for label, classes in source.labels.items():
        assert source.table[label].dropna().between(0, len(classes) - 1).all()
    for attribute, groups in source.attributes.items():
        assert source.table[attribute].dropna().isin(groups).all()


SECONDS, BYTES = 10, 2 << 30
"""What one image may take at most."""


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 200), *(pytest.param(seed, 2000, marks=pytest.mark.long) for seed in range(1, 4))]
)
def test_mutated_headers_of_dicom_and_png(seed, count):
    for package in ("pydicom", "openjpeg"):
        pytest.importorskip(package, reason="the extra `dicom` is not installed")
    script = Path(__file__).with_name("mutate.py")
    done = subprocess.run(
        [sys.executable, str(script), str(seed), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "panicked" not in done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["slowest"] < SECONDS
    assert found["peak"] < BYTES
    assert sum(found["ends"].values()) == count
    assert found["ends"]["image"] > count / 10  # the mutations are not all fatal
    assert found["ends"]["sentence"] > count / 10
