"""Speed of the audit, measured side by side in one run.

1. Bootstrap of four rates by group: replicates from counts against re-indexed rows through Fairlearn's
   MetricFrame, with intervals that agree within Monte-Carlo error.
2. The whole audit of a million images of 200,000 patients: two attributes, their intersection, 2,000
   replicates by patient, all metrics. Time and peak memory.

Run with `python benchmarks/audit.py`.
"""

import resource
import time

import fairlearn.metrics as fl
import numpy as np

from fairdx.auditing import audit
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


if __name__ == "__main__":
    whole_audit()
    four_rates()
