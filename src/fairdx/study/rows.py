"""The table of a study: one row for each run."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fairdx.methods import METHODS
from fairdx.study.plan import PlannedRun

FIRST = ("key", "data", "method", "seed", "fold")
LAST = ("needs_group", "seconds", "folder", "kept_epoch", "failure")


def run_row(run: PlannedRun, results: dict[str, Any] | None) -> dict[str, Any]:
    """What came out of a run, as a flat row.

    Args:
        run: The run.
        results: Content of its `results.json`; None where it failed.

    Returns:
        `key`, `data`, `method`, `seed`, `fold`, the varied settings, `needs_group`, `seconds`, `folder`,
        `kept_epoch` (of the last stage), `failure`, and for each metric its value, `NAME/low` and
        `NAME/high`. What is not known is None.
    """
    name = run.settings.method_name
    row: dict[str, Any] = {
        "key": run.key,
        "data": run.data,
        "method": run.method,
        "seed": run.seed,
        "fold": run.fold,
        **run.varied,
        "needs_group": METHODS[name].needs_group,
        "seconds": None,
        "folder": f"runs/{run.key}",
        "kept_epoch": None,
        "failure": None,
    }
    if results is None:
        return row
    row["seconds"] = results["seconds"]
    row["kept_epoch"] = next(reversed(results["kept_epochs"].values()), None)
    return row | metric_columns(results["methods"][name])


def metric_columns(figures: dict[str, Any]) -> dict[str, float | None]:
    """The value and interval of each metric, under `NAME`, `NAME/low` and `NAME/high`."""
    found: dict[str, float | None] = {}
    for metric, estimate in figures.items():
        if isinstance(estimate, dict) and "value" in estimate:
            found[metric] = estimate["value"]
            found[f"{metric}/low"] = estimate.get("low")
            found[f"{metric}/high"] = estimate.get("high")
    return found


def rows_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table whose columns each have one type."""
    frame = pd.DataFrame(rows, columns=None if rows else [*FIRST, *LAST])
    whole = {name: "Int64" for name in ("seed", "fold", "kept_epoch") if name in frame}
    texts = dict.fromkeys(("key", "data", "method", "folder", "failure"), "string")
    frame = frame.astype({**texts, **whole, "needs_group": "boolean", "seconds": "float64"})
    metrics = {name.removesuffix("/low") for name in frame.columns if name.endswith("/low")}
    for name in frame.columns:
        if name.removesuffix("/low").removesuffix("/high") in metrics:
            frame[name] = frame[name].astype("float64")
        elif frame[name].dtype == object:
            frame[name] = _setting(frame[name])
    return frame


def _setting(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Values of a varied setting: as they are where they are of one kind, otherwise as text."""
    kinds = {type(value) for value in values.dropna()}
    if len(kinds) < 2 and not kinds & {list, dict}:
        return values.infer_objects()
    return values.map(lambda value: None if value is None else str(value)).astype("string")
