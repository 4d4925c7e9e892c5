"""What the audit's intervals and tests are worth: the cells of `tests/inference/cells.py`, counted.

Run with `python benchmarks/coverage.py`, which takes two hours of processor time with 1,000 data
sets for each cell, or name cells: `python benchmarks/coverage.py --draws 200 "ten groups"`. It adds what it
finds to docs/figures/coverage.csv. `--markdown` counts nothing and prints that file as the tables of
docs/coverage.md.
"""

from counting import ROOT, Rows, Table, load, parser, run

MODULE = ROOT / "tests" / "inference" / "cells.py"
FIELDS = ("cell", "figure", "share", "data_sets")
SHORT = {
    "demographic_parity_difference": "DP",
    "equal_opportunity_difference": "EO",
    "equalized_odds_difference": "EOdds",
    "approximate_diagnosis_fairness_corrected": "ADF",
    "direct_effect": "DE",
    "auroc_gap": "ΔAUC",
    "auroc 1": "AUC",
    "calibration_slope 1": "slope",
    "expected_calibration_error 1": "ECE",
    "score_mutual_information": r"I(S;score\|Y)",
    "tpr 0": "TPR large",
    "auroc 0": "AUC large",
    "tpr 1": "TPR small",
}


CORRECTIONS = ("Westfall-Young", "Holm", "uncorrected")
SINGLE = """| Cell | Data sets | Intervals that hold the truth | Tests at 5 % that reject a true hypothesis |
|---|---|---|---|"""
FAMILY = """| Audits | Counted | | Westfall and Young | Holm | Uncorrected |
|---|---|---|---|---|---|"""


def short(metric: str, *, mixed: bool) -> str:
    name = metric.removeprefix("mixed ")
    return "AUC small" if mixed and name == "auroc 1" else SHORT[name]


def markdown(rows: Rows) -> list[str]:
    """Two tables: intervals and tests of each cell; corrected tests of a family."""
    single, family = SINGLE.splitlines(), FAMILY.splitlines()
    counted = {cell for cell, _ in rows}
    for cell in (name for name in load(MODULE).cells() if name in counted):
        found = {figure: row for (name, figure), row in rows.items() if name == cell}
        count = next(iter(found.values()))["data_sets"]
        said = {
            kind: ", ".join(
                f"{short(figure.removeprefix(kind), mixed='mixed' in figure)} {row['share']}"
                for figure, row in found.items()
                if figure.startswith(kind)
            )
            for kind in ("coverage ", "size ")
        }
        if any(said.values()):
            single.append(f"| {cell} | {count} | {said['coverage ']} | {said['size '] or '-'} |")
        for kind, words in (("family", "one or more p ≤ 0.05, all in error"), ("power", "found")):
            shares = [found.get((f"{kind}, {c}"), {}).get("share", "-") for c in CORRECTIONS]
            if set(shares) != {"-"}:
                family.append(f"| {cell} | {count} | {words} | {' | '.join(shares)} |")
    return [*single, "", *family]


def main() -> None:
    options = parser(__doc__, "cell", ROOT / "docs" / "figures" / "coverage.csv")
    options.add_argument("--replicates", type=int, default=200, help="bootstrap replicates of each audit")
    options.add_argument("--markdown", action="store_true", help="count nothing; print the file as tables")
    asked = options.parse_args()
    table = Table(asked.out, FIELDS)
    if asked.markdown:
        print("\n".join(markdown(table.read())))
        return
    names = asked.names or list(load(MODULE).cells())
    run(asked, table, MODULE, names, n_replicates=asked.replicates)


if __name__ == "__main__":
    main()
