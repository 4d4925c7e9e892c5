"""Do the intervals of `fairdx monitor` hold at every look? The streams of `tests/auditing/streams.py`.

Run with `python benchmarks/monitoring.py --draws 1000`, or name streams. It adds what it finds to
docs/figures/monitoring.csv.
"""

from counting import ROOT, Table, load, parser, run

MODULE = ROOT / "tests" / "auditing" / "streams.py"
FIELDS = ("stream", "figure", "share", "streams")


def main() -> None:
    asked = parser(__doc__, "stream", ROOT / "docs" / "figures" / "monitoring.csv").parse_args()
    run(asked, Table(asked.out, FIELDS), MODULE, asked.names or list(load(MODULE).STREAMS))


if __name__ == "__main__":
    main()
