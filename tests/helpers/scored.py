"""What `predict` wrote, for its tests."""

import pandas as pd

from fairdx.deploy.predict import PredictOptions

ONE = PredictOptions(workers=1)


def table_of(out):
    return pd.read_csv(out, keep_default_na=False)


def errors_of(out):
    return pd.read_csv(out.with_name(f"{out.name}.errors.csv"), keep_default_na=False)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
