"""Images that seem to be counted more than once: several models in one file, or every row twice."""

import re
from collections.abc import Sequence

import numpy as np

from fairdx.auditing.source import Source
from fairdx.auditing.table import Table
from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Ints

IMAGE_NAMES = re.compile(
    r"(image|img|dicom|sop_?instance|instance|file|study|scan|slide|case|exam|accession)?"
    r"[ _.-]?(id|uid|name|path|file|number|index|no)?",
    re.IGNORECASE,
)
"""Names of columns that name an image."""
MODEL_NAMES = re.compile(
    r"(model|method|algorithm|run|seed|fold|checkpoint|epoch|reader)([ _.-]?(id|name))?", re.IGNORECASE
)
"""Names of columns that say whose prediction a row is."""
_SHARE = 0.01


def checked_columns(source: Source, identifier: str | None) -> list[str]:
    """Columns that nobody asked for, but that show whether an image is counted more than once."""
    return [
        name
        for name in source.columns
        if name != identifier
        and name
        and source.columns.count(name) == 1
        and (IMAGE_NAMES.fullmatch(name) or MODEL_NAMES.fullmatch(name))
    ]


def check_repeats(table: Table, needed: Sequence[str], identifier: str | None) -> list[str]:
    """Look for images that are counted more than once.

    Args:
        table: The rows to be audited, with `checked_columns`.
        needed: The columns that were asked for.
        identifier: Column that names the image, already known to be unique; or None.

    Returns:
        Cautions.

    Raises:
        InputError: Images repeat, once for each value of a column that names a model.
    """
    if identifier is not None:
        return []
    extra = [name for name in table.data.column_names if name not in needed]
    images = [name for name in extra if IMAGE_NAMES.fullmatch(name)]
    models = [name for name in extra if MODEL_NAMES.fullmatch(name)]
    cautions = []
    for image in images:
        codes = table.text(image).codes
        repeated = len(codes) - len(np.unique(codes))
        if repeated < _SHARE * len(codes) or (codes < 0).any():
            continue
        for model in models:
            _refuse_models(table, image, model, codes)
        cautions.append(
            f"{image} repeats in {repeated:,} of {len(codes):,} rows. If it names the image, images are "
            "counted "
            "more than once; name it with --id to be sure."
        )
    for model in models:
        names = table.text(model).names
        if len(names) > 1:
            cautions.append(
                f"{model} has {len(names):,} values ({', '.join(names[:4])}), whose rows are audited as one; "
                f"choose one with --where {model}={names[0]}."
            )
    return cautions or _whole_rows(table, needed)


def _refuse_models(table: Table, image: str, model: str, codes: Ints) -> None:
    found = table.text(model)
    if len(found.names) < 2:
        return
    pairs = codes * (len(found.names) + 1) + found.codes
    if len(np.unique(pairs)) == len(pairs):
        raise InputError(
            f"{table.name}: each {image} has several rows, one for each {model} "
            f"({', '.join(found.names[:4])}); "
            f"choose one with --where {model}={found.names[0]}."
        )


def _whole_rows(table: Table, needed: Sequence[str]) -> list[str]:
    """A caution if rows are copies of others, which scores in many digits hardly are by chance."""
    key = np.zeros(len(table), dtype=np.int64)
    distinct = 1
    for column in dict.fromkeys(needed):
        found = table.text(column)
        key = np.unique(key * (len(found.names) + 1) + found.codes + 1, return_inverse=True)[1]
    counts = np.bincount(key)
    distinct = len(counts)
    copies = len(key) - distinct
    several = int(np.gcd.reduce(counts))
    fine = distinct > len(key) / 4
    if several > 1 and distinct > 10:
        return [
            f"Every row occurs {several} times or a multiple of it; if images repeat, intervals are too "
            "narrow."
        ]
    if fine and copies > _SHARE * len(key):
        return [
            f"{copies:,} of {len(key):,} rows are copies of others; if images repeat, intervals are too "
            "narrow."
        ]
    return []
