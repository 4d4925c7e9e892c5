"""What the audit's intervals and tests are worth: the cells of `tests/inference/cells.py`, counted.

Run with `python benchmarks/coverage.py`, which takes hours with 1,000 data sets for each cell, or name cells:
`python benchmarks/coverage.py --draws 200 "ten groups"`. It adds what it finds to docs/figures/coverage.csv.
"""

import argparse
import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("cell", "figure", "share", "data_sets")


def load_cells() -> ModuleType:
    spec = spec_from_file_location("cells", ROOT / "tests" / "inference" / "cells.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """What was found before, by cell and figure."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["cell"], row["figure"]): row for row in csv.DictReader(file)}


def write(path: Path, rows: dict[tuple[str, str], dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cells", nargs="*", help="names of cells; all of them unless given")
    parser.add_argument("--draws", type=int, default=1000, help="simulated data sets for each cell")
    parser.add_argument("--replicates", type=int, default=400, help="bootstrap replicates of each audit")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "coverage.csv")
    options = parser.parse_args()
    module = load_cells()
    module.OPTIONS["n_replicates"] = options.replicates
    every = module.cells()
    for name in options.cells or every:
        rows = read(options.out)
        for figure, share in module.study(every[name], options.draws).items():
            found = (name, figure, f"{share:.4f}".rstrip("0").rstrip("."), str(options.draws))
            rows[name, figure] = dict(zip(FIELDS, found, strict=True))
            print(f"{name:45} {figure:55} {share:.3f}", flush=True)
        write(options.out, rows)


if __name__ == "__main__":
    main()
