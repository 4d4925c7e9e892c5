"""Speed of the audit, measured side by side in one run.

1. Bootstrap of four rates by group: replicates from counts against re-indexed rows through Fairlearn's
   MetricFrame, with intervals that agree within Monte-Carlo error.
2. The whole audit of a million images of 200,000 patients: two attributes, their intersection, 2,000
   replicates by patient, all metrics. Time and peak memory.
3. Many groups (10,000 images, three and four attributes with their intersections, with their page), many
   findings (14 on 100,000 images, three attributes, with their page), many rows (1,000,000 and 10,000,000,
   one attribute): the same, each in a process of its own.
4. What would be too much: 6 and 30 attributes, 500 classes.
5. Reading 3 of 2,000 columns of a CSV file, against pandas reading all of them.

Run with `python benchmarks/audit.py`, or with the names of some cells (`rates million groups findings rows
limits wide`); `--quick` takes a hundredth of the images.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fairlearn.metrics as fl
import numpy as np
import pandas as pd

from fairdx.auditing import audit
from fairdx.auditing.page import render_audit
from fairdx.auditing.table import read_table
from fairdx.inference.resampling import all_replicates, collapse
from fairdx.metrics.rates import binary_rates

RATES = {
    "selection_rate": fl.selection_rate,
    "tpr": fl.true_positive_rate,
    "fpr": fl.false_positive_rate,
    "accuracy": lambda y, d: float(np.mean(np.asarray(y) == np.asarray(d))),
}


def simulate(n: int, per_patient: int, seed: int) -> tuple[np.ndarray, ...]:
    """Label, score, two attributes and patient of n images."""
    rng = np.random.default_rng(seed)
    patients = n // per_patient
    patient = np.sort(rng.integers(0, patients, n))
    sex, age = rng.integers(0, 2, patients)[patient], rng.integers(0, 4, patients)[patient]
    y = (rng.random(n) < np.where(sex == 1, 0.6, 0.25)).astype(int)
    logit = rng.normal(size=n) + 2 * y + 0.2 * sex + 0.05 * age - 1.2
    return y, 1 / (1 + np.exp(-logit)), sex, age, patient


def four_rates(n: int = 100_000, ours_draws: int = 100_000, theirs_draws: int = 100) -> None:
    y, score, sex, *_ = simulate(n, 5, seed=0)
    d = (score >= 0.5).astype(int)
    start = time.perf_counter()
    units = collapse([(sex * 2 + y) * 2 + d], [8], None)
    draws = all_replicates(units, ours_draws, np.random.default_rng(1)).reshape(-1, 2, 2, 2)
    ours = binary_rates(draws)
    our_time = (time.perf_counter() - start) / ours_draws

    rng = np.random.default_rng(2)
    start = time.perf_counter()
    theirs = []
    for _ in range(theirs_draws):
        rows = rng.integers(0, n, n)
        frame = fl.MetricFrame(metrics=RATES, y_true=y[rows], y_pred=d[rows], sensitive_features=sex[rows])
        theirs.append(frame.by_group.to_numpy(dtype=float))
    their_time = (time.perf_counter() - start) / theirs_draws

    print(f"four rates by group, n = {n:,}")
    print(f"  fairdx     {our_time * 1e6:12.2f} µs per replicate ({ours_draws:,} replicates)")
    print(f"  MetricFrame{their_time * 1e6:12.2f} µs per replicate ({theirs_draws:,} replicates)")
    print(f"  ratio      {their_time / our_time:12,.0f}")
    stack = np.stack(theirs)
    worst = 0.0
    for r, name in enumerate(RATES):
        for s in (0, 1):
            mine, other = ours[name][:, s], stack[:, s, r]
            # the standard error of a 2.5 % quantile from normal replicates is 2.67 sd / sqrt(B)
            error = 2.67 * mine.std() / np.sqrt(theirs_draws)
            ends = np.quantile(mine, [0.025, 0.975]) - np.quantile(other, [0.025, 0.975])
            worst = max(worst, float(np.abs(ends).max() / error))
    print(f"  interval ends differ by at most {worst:.1f} Monte-Carlo standard errors (of 16 ends)")


def whole_audit(n: int = 1_000_000) -> None:
    y, score, sex, age, patient = simulate(n, 5, seed=0)
    start, busy = time.perf_counter(), time.process_time()
    result = audit(y, score, sensitive_features={"sex": sex, "age": age}, patients=patient, n_replicates=2000)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"audit of {n:,} images, {result.n_patients:,} patients, {list(result.attributes)}")
    print(f"  {seconds:.1f} s ({busy:.1f} s of processor time), peak memory {peak:.2f} GiB")
    print(f"  {len(result.to_frame())} estimates with intervals")


def measured(title: str, work: Callable[[], object]) -> None:
    """Seconds, processor time and peak memory of some work, in this process."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{title}: {seconds:.1f} s ({busy:.1f} s of processor time), peak memory {peak:.2f} GiB", flush=True
    )


def page(*given: Any, **named: Any) -> None:
    """An audit and its page."""
    render_audit(audit(*given, **named))


def many_groups(n: int, n_attributes: int) -> None:
    rng, patients = np.random.default_rng(0), n // 2
    patient = np.sort(rng.integers(0, patients, n))
    sizes = {"sex": 2, "race": 5, "age": 4, "site": 6}
    attributes = {
        name: rng.integers(0, size, patients)[patient] for name, size in list(sizes.items())[:n_attributes]
    }
    y = (rng.random(n) < 0.3).astype(int)
    score = 1 / (1 + np.exp(1.2 - 2 * y - 0.2 * attributes["sex"] - rng.normal(size=n)))
    told = f"{n:,} images, {n_attributes} attributes crossed, with the page"
    measured(told, lambda: page(y, score, sensitive_features=attributes, patients=patient))


def many_findings(n: int, n_findings: int) -> None:
    rng, patients = np.random.default_rng(0), n // 2
    patient = np.sort(rng.integers(0, patients, n))
    attributes = {
        name: rng.integers(0, k, patients)[patient] for name, k in (("sex", 2), ("age", 4), ("race", 5))
    }
    y = (rng.random((n, n_findings)) < 0.1).astype(int)
    score = 1 / (1 + np.exp(1.2 - 2 * y - rng.normal(size=y.shape)))
    told = f"{n:,} images, {n_findings} findings, 3 attributes, with the page"
    measured(told, lambda: page(y, score, sensitive_features=attributes, patients=patient))


def many_rows(n: int, per_patient: int) -> None:
    y, score, sex, _, patient = simulate(n, per_patient, seed=0)
    told = f"{n:,} images{f' of {n // per_patient:,} patients' if per_patient > 1 else ''}, 1 attribute, page"
    given = {"sensitive_features": {"sex": sex}, "patients": patient if per_patient > 1 else None}
    measured(told, lambda: page(y, score, **given))


def many_attributes(n: int, n_attributes: int) -> None:
    rng = np.random.default_rng(0)
    attributes = {f"a{k}": rng.integers(0, 2 + k % 4, n) for k in range(n_attributes)}
    y = (rng.random(n) < 0.3).astype(int)
    score = 1 / (1 + np.exp(1.2 - 2 * y - rng.normal(size=n)))
    told = f"{n:,} images, {n_attributes} attributes, with the page"
    measured(told, lambda: page(y, score, sensitive_features=attributes))


def many_classes(n: int, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n - n_classes))
    score = rng.dirichlet(np.full(n_classes, 0.1), n) * 0.7 + 0.3 * np.eye(n_classes)[y]
    told = f"{n:,} images, {n_classes} classes, 1 attribute, with the page"
    measured(told, lambda: page(y, score, sensitive_features={"sex": rng.integers(0, 2, n)}))


def wide_table(n: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((n, columns)).round(4), columns=[f"c{k}" for k in range(columns)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.csv"
        frame.to_csv(path, index=False)
        start = time.perf_counter()
        read_table(path, ["c0", "c1", "c2"])
        ours, start = time.perf_counter() - start, time.perf_counter()
        pd.read_csv(path)
        theirs = time.perf_counter() - start
    print(f"3 of {columns:,} columns, {n:,} rows: {ours:.2f} s; pandas, all columns: {theirs:.2f} s")
    print(f"  ratio      {theirs / ours:12,.0f}")


def alone(work: Callable[..., None], *arguments: object) -> None:
    """Run in a process of its own, whose peak memory is then that of the work."""
    process = get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()


if __name__ == "__main__":
    scale = 100 if "--quick" in sys.argv else 1
    chosen = [a for a in sys.argv[1:] if not a.startswith("-")]
    cells: dict[str, list[tuple[Callable[..., None], *tuple[int, ...]]]] = {
        "groups": [(many_groups, 10_000 // min(scale, 10), k) for k in (3, 4)],
        "findings": [(many_findings, 100_000 // scale, 14)],
        "rows": [(many_rows, n // scale, k) for n, k in ((1_000_000, 2), (10_000_000, 1), (10_000_000, 2))],
        "limits": [
            (many_attributes, 10_000 // min(scale, 10), 6),
            (many_attributes, 10_000 // min(scale, 10), 30),
            (many_classes, 10_000 // min(scale, 5), 500),
        ],
        "wide": [(wide_table, 5_000 // scale, 2_000)],
        "million": [(whole_audit, 1_000_000 // scale)],
        "rates": [(four_rates,)] if scale == 1 else [],
    }
    for name, works in cells.items():
        for work, *arguments in works if not chosen or name in chosen else []:
            alone(work, *arguments)
