"""What the audit's intervals and tests are worth: the cells of `tests/inference/cells.py`, counted.

Run with `python benchmarks/coverage.py`, which takes two hours of processor time with 1,000 data
sets for each cell, or name cells: `python benchmarks/coverage.py --draws 200 "ten groups"`. It adds what it
finds to docs/figures/coverage.csv.
"""

from counting import ROOT, Table, load, parser, run

MODULE = ROOT / "tests" / "inference" / "cells.py"
FIELDS = ("cell", "figure", "share", "data_sets")


def main() -> None:
    options = parser(__doc__, "cell", ROOT / "docs" / "figures" / "coverage.csv")
    options.add_argument("--replicates", type=int, default=200, help="bootstrap replicates of each audit")
    asked = options.parse_args()
    names = asked.names or list(load(MODULE).cells())
    run(asked, Table(asked.out, FIELDS), MODULE, names, n_replicates=asked.replicates)


if __name__ == "__main__":
    main()
