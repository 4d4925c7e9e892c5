"""Time and memory of reading, joining, checking and splitting tables of the size of CheXpert and MIMIC-CXR.

The tables are generated with the real headers and the real numbers of rows; each reader runs in a process of
its own, so that its peak of resident memory is its own.

    python benchmarks/tables.py

Against another version of the project, both in one run, in turn:

    git worktree add ../before COMMIT
    python benchmarks/tables.py --against ../before/src
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fairdx.data.readers.chexpert import read_chexpert
from fairdx.data.readers.mimic_cxr import read_mimic_cxr
from fairdx.data.readers.observations import OBSERVATIONS
from fairdx.data.source import Source, check_source
from fairdx.data.split import check_disjoint, split_patients

# Rows and patients as published.
CHEXPERT = {"images": 223_414, "patients": 64_540}
MIMIC = {"images": 377_110, "studies": 227_835, "patients": 65_379}
LIMITS = {"chexpert": {"seconds": 10, "gib": 1.0}, "mimic": {"seconds": 40, "gib": 2.5}}
"""As we promise them."""
ROUNDS = 3
MIMIC_IV = {"patients": 299_712, "admissions": 431_231}


def observations(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    cells = rng.choice(["1.0", "0.0", "-1.0", ""], (rows, len(OBSERVATIONS)), p=[0.15, 0.1, 0.05, 0.7])
    table = pd.DataFrame(cells, columns=list(OBSERVATIONS))
    return table.assign(**{"No Finding": rng.choice(["1.0", ""], rows)})


def write_chexpert(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, rows, first in (("train", CHEXPERT["images"], 1), ("valid", 234, 64_541)):
        patients = CHEXPERT["patients"] if name == "train" else 200
        patient = first + np.sort(rng.integers(0, patients, rows))
        side = rng.choice(["Frontal", "Lateral"], rows, p=[0.855, 0.145])
        head = pd.DataFrame(
            {
                "Path": [
                    f"CheXpert-v1.0-small/{name}/patient{p:05d}/study1/view{i}_x.jpg"
                    for i, p in enumerate(patient)
                ],
                "Sex": rng.choice(["Male", "Female"], rows),
                "Age": rng.integers(18, 91, rows),
                "Frontal/Lateral": side,
                "AP/PA": np.where(
                    side == "Lateral", "", rng.choice(["AP", "PA", "LL"], rows, p=[0.8, 0.19, 0.01])
                ),
            }
        )
        pd.concat([head, observations(rng, rows)], axis=1).to_csv(root / f"{name}.csv", index=False)


def write_mimic(root: Path) -> None:
    rng = np.random.default_rng(0)
    images, studies, patients = MIMIC["images"], MIMIC["studies"], MIMIC["patients"]
    everyone = 10_000_000 + rng.choice(10_000_000, MIMIC_IV["patients"], replace=False)
    subject_of_study = rng.choice(everyone[:patients], studies)
    study = 50_000_000 + np.arange(studies)
    of_image = np.concatenate([np.arange(studies), rng.integers(0, studies, images - studies)])
    identifier = [
        f"{a:08x}-{b:08x}-{c:08x}-{d:08x}-{i:08x}"
        for i, (a, b, c, d) in enumerate(rng.integers(0, 2**32, (images, 4)))
    ]
    metadata = pd.DataFrame(
        {
            "dicom_id": identifier,
            "subject_id": subject_of_study[of_image],
            "study_id": study[of_image],
            "PerformedProcedureStepDescription": "CHEST (PORTABLE AP)",
            "ViewPosition": rng.choice(
                ["AP", "PA", "LATERAL", "LL", ""], images, p=[0.39, 0.26, 0.22, 0.09, 0.04]
            ),
            "Rows": 3056,
            "Columns": 2544,
            "StudyDate": rng.integers(2110, 2200, images) * 10_000 + 615,
            "StudyTime": "213014.531",
            "ProcedureCodeSequence_CodeMeaning": "CHEST (PORTABLE AP)",
            "ViewCodeSequence_CodeMeaning": "antero-posterior",
            "PatientOrientationCodeSequence_CodeMeaning": "Erect",
        }
    )
    metadata.to_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)
    side = np.where(split_patients(subject_of_study, seed=0, test=0.02) == "test", "test", "train")[of_image]
    split = metadata[["dicom_id", "study_id", "subject_id"]].assign(split=side)
    split.to_csv(root / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    labels = pd.concat(
        [pd.DataFrame({"subject_id": subject_of_study, "study_id": study}), observations(rng, studies)],
        axis=1,
    )
    labels.to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    people = pd.DataFrame({"subject_id": everyone, "gender": rng.choice(["M", "F"], len(everyone))})
    people["anchor_age"], people["anchor_year"] = rng.integers(18, 92, len(everyone)), 2150
    people.assign(anchor_year_group="2014 - 2016", dod="").to_csv(root / "patients.csv.gz", index=False)
    admissions = pd.DataFrame({"subject_id": rng.choice(everyone, MIMIC_IV["admissions"])})
    admissions["hadm_id"] = np.arange(len(admissions))
    admissions["insurance"] = rng.choice(["Medicare", "Medicaid", "Other"], len(admissions))
    admissions["race"] = rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN", "ASIAN"], len(admissions))
    admissions.to_csv(root / "admissions.csv.gz", index=False)


def measure(name: str, root: str) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    source: Source = {"chexpert": read_chexpert, "mimic": read_mimic_cxr}[name](root)
    check_source(source)
    check_disjoint(source.table)
    split_patients(source.table["patient"], seed=0, validation=0.1)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    limit = LIMITS[name]
    total = len(source.table) + len(source.exclusions)
    print(
        f"{name}: {total:,} images read, joined, checked and split in {seconds:.1f} s "
        f"(limit {limit['seconds']}; {cpu:.2f} s of a processor), "
        f"peak {gib:.2f} GiB (limit {limit['gib']})"
    )
    if seconds > limit["seconds"] or gib > limit["gib"]:
        sys.exit(f"{name}: over its limit")


TIMED = """
import sys, time
from fairdx.data.readers import READERS  # which every version has, wherever its readers are
from fairdx.data.source import check_source
reader = READERS[{"mimic": "mimic-cxr"}.get(sys.argv[1], sys.argv[1])]
start = time.process_time()
check_source(reader(sys.argv[2]))
print(time.process_time() - start)
"""


def against(other: str) -> None:
    """The processor time of this version over that of another."""
    ours = str(Path(__file__).parents[1] / "src")
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("chexpert", write_chexpert), ("mimic", write_mimic)):
            root = Path(folder) / name
            root.mkdir()
            write(root)
            times: dict[str, list[float]] = {ours: [], other: []}
            for _ in range(ROUNDS):  # in turn, so that a busy machine slows both alike
                for source, measured in times.items():
                    environment = {**os.environ, "PYTHONPATH": source}
                    command = [sys.executable, "-c", TIMED, name, str(root)]
                    done = subprocess.run(
                        command, env=environment, capture_output=True, text=True, check=True
                    )
                    measured.append(float(done.stdout))
            here, there = (float(np.median(times[source])) for source in (ours, other))
            print(f"{name}: {here:.2f} s, the other version {there:.2f} s: {here / there:.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("chexpert", write_chexpert), ("mimic", write_mimic)):
            root = Path(folder) / name
            root.mkdir()
            write(root)
            subprocess.run([sys.executable, __file__, name, str(root)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--against"]:
        against(sys.argv[2])
    elif sys.argv[1:]:
        measure(*sys.argv[1:])
    else:
        main()
