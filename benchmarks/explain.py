"""What `fairdx explain` costs, and how often its overlap finds something where there is nothing.

`python benchmarks/explain.py cost RUN` explains a run on 500 and on 2,000 images, each in a process of its
own, in turns, and prints peak memory and processor time. `python benchmarks/explain.py lots --runs 200`
deals the groups of a small phantom out by lot, which no image shows, and counts how often the overlap of the
maps says otherwise.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (500, 2000)
ALONE = """
import json, resource, sys, time
from pathlib import Path
from fairdx.explain.settings import load_explain_settings
from fairdx.runs.explain import ExplainRequest, explain_folder
place, out, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
start = time.process_time()
found, _ = explain_folder(ExplainRequest(place, load_explain_settings((f"images={count}",)), out=out))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
seconds = time.process_time() - start
print(json.dumps({"images": len(found.asked.indices), "seconds": seconds, "peak": peak}))
"""


def cost(run: Path, rounds: int) -> None:
    """Peak memory and processor time by number of images."""
    found: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for count in COUNTS:
                command = [sys.executable, "-c", ALONE, str(run), folder, str(count)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[count].append(json.loads(said.splitlines()[-1]))
                print(found[count][-1], flush=True)
    few, many = (
        {key: sum(one[key] for one in found[count]) / rounds for key in ("images", "seconds", "peak")}
        for count in COUNTS
    )
    more = many["images"] - few["images"]
    print(f"memory: {few['peak']:.0f} MiB with {few['images']:.0f} images, ", end="")
    print(f"{many['peak']:.0f} MiB with {many['images']:.0f}")
    print(f"each image more: {(many['peak'] - few['peak']) / more * 1024:.1f} KiB, ", end="")
    print(f"{(many['seconds'] - few['seconds']) / more * 1000:.1f} ms of processor time")


def lots(runs: int) -> None:
    """Shares of runs in which groups by lot, or shuffled pairs alone, find something; the level is 5 %."""
    trained = load("conftest").train
    sanity = load("test_sanity")
    with tempfile.TemporaryDirectory() as folder:
        scene = trained(Path(folder) / "set")
        counts = sanity.false_findings(scene, runs, deals=39, level=0.05)
    for name, count in counts.items():
        ends = binomtest(count, runs).proportion_ci()
        print(f"{name}: {count} of {runs}, {count / runs:.1%} ({ends.low:.1%} to {ends.high:.1%})")


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"explain_{name}", ROOT / "tests" / "explain" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="what", required=True)
    costs = commands.add_parser("cost", help="peak memory and processor time by number of images")
    costs.add_argument("run", type=Path, help="a run with 2,000 test images or more")
    costs.add_argument("--rounds", type=int, default=1)
    dealt = commands.add_parser("lots", help="how often groups dealt by lot are found in the maps")
    dealt.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    if options.what == "cost":
        cost(options.run, options.rounds)
    else:
        lots(options.runs)


if __name__ == "__main__":
    main()
