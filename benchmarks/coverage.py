"""How often 95 % intervals cover the truth: the study of `tests/inference/test_coverage.py` as a figure.

Run with `python benchmarks/coverage.py`, which takes minutes. It writes docs/figures/coverage.csv and
docs/figures/coverage.svg.
"""

import argparse
import csv
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from types import ModuleType

from fairdx.metrics import METRICS
from fairdx.report.svg import Axis, Panel, sheet

ROOT = Path(__file__).resolve().parents[1]
SIZES = (500, 2000, 10_000)
GAPS = (0.0, 0.3)
FIELDS = ("images", "patients", "gap", "metric", "coverage", "data_sets")


def study() -> ModuleType:
    spec = spec_from_file_location("test_coverage", ROOT / "tests" / "fairness" / "test_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(draws: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    coverage = study().coverage
    for n, gap, clustered in product(SIZES, GAPS, (False, True)):
        found = coverage(n, gap, clustered, draws)
        print(n, gap, "clustered" if clustered else "independent", found, flush=True)
        patients = "1-10 images each" if clustered else "1 image each"
        rows += [
            dict(zip(FIELDS, (n, patients, gap, metric, share, draws), strict=True))
            for metric, share in found.items()
        ]
    return rows


def figure(rows: list[dict[str, object]]) -> str:
    metrics = list(dict.fromkeys(str(row["metric"]) for row in rows))
    panels = []
    for gap, patients in dict.fromkeys((row["gap"], row["patients"]) for row in rows):
        title = f"{'With' if gap else 'Without'} a difference, {patients}"
        names = [f"{n:,}" for n in SIZES]
        x = Axis(-0.4, 2.4, "images", lambda t, names=names: names[int(t)], (0.0, 1.0, 2.0))  # type: ignore[misc]
        y = Axis(0.9, 1.0, "coverage", "{:.2f}".format, (0.9, 0.93, 0.95, 0.97, 1.0))
        panel = Panel(x, y, label=title, title=title)
        panel.band([-0.4, 2.4], [0.93, 0.93], [0.97, 0.97])
        for row in rows:
            if (row["gap"], row["patients"]) == (gap, patients):
                series = metrics.index(str(row["metric"]))
                place = SIZES.index(int(str(row["images"]))) + (series - 2) * 0.12
                panel.marker(place, float(str(row["coverage"])), series)
        panels.append(panel.svg)
    label = "Share of 95 % intervals that hold the true value, by metric and number of images"
    return sheet(panels, [METRICS[m].abbreviation for m in metrics], label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=1000, help="simulated data sets for each cell")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="folder to write to")
    options = parser.parse_args()
    rows = run(options.draws)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "coverage.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (options.out / "coverage.svg").write_text(figure(rows), encoding="utf-8")
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(str(row["metric"]), []).append(float(str(row["coverage"])))
    for metric, found in shares.items():
        print(f"{metric:45} lowest {min(found):.3f}  highest {max(found):.3f}")


if __name__ == "__main__":
    main()
