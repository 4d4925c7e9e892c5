"""Do the intervals of `fairdx monitor` hold at every look? The streams of `tests/auditing/streams.py`.

Run with `python benchmarks/monitoring.py --draws 1000`, or name streams. It adds what it finds to
docs/figures/monitoring.csv.
"""

import argparse
import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("stream", "figure", "share", "streams")


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    import sys

    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("streams", nargs="*", help="names of streams; all of them unless given")
    parser.add_argument("--draws", type=int, default=1000, help="simulated streams of each kind")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "monitoring.csv")
    options = parser.parse_args()
    module = load(ROOT / "tests" / "auditing" / "streams.py")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    if options.out.exists():
        with options.out.open(encoding="utf-8", newline="") as file:
            rows = {(row["stream"], row["figure"]): row for row in csv.DictReader(file)}
    for name in options.streams or module.STREAMS:
        for figure, share in module.held(module.STREAMS[name], options.draws).items():
            found = (name, figure, f"{share:.4f}".rstrip("0").rstrip("."), str(options.draws))
            rows[name, figure] = dict(zip(FIELDS, found, strict=True))
            print(f"{name:35} {figure:35} {share:.3f}", flush=True)
        with options.out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())


if __name__ == "__main__":
    main()
