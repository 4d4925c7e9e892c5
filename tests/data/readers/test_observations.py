"""Race as the tables of the data sets spell it."""

import pandas as pd
import pytest

from fairdx.data.readers.observations import parse_race

SPELLINGS = {
    "White, non-Hispanic": "white",
    "WHITE - BRAZILIAN": "white",
    "Caucasian": "white",
    "BLACK/AFRICAN AMERICAN": "black",
    "African American": "black",
    "Asian - Historical Conv": "asian",
    "Native Hawaiian or Other Pacific Islander": "other",
    "HISPANIC/LATINO - PUERTO RICAN": "other",
    "AMERICAN INDIAN/ALASKA NATIVE": "other",
    "MULTIPLE RACE/ETHNICITY": "other",
    "PORTUGUESE": "other",
    "Other": "other",
    "Patient declines": None,
    "PATIENT DECLINED TO ANSWER": None,
    "Patient Refused": None,
    "Race and Ethnicity Unknown": None,
    "UNABLE TO OBTAIN": None,
    "not reported": None,
    "Prefer not to say": None,
    "nan": None,
    "": None,
}


def test_spellings_of_the_published_tables():
    words = pd.Series(SPELLINGS.keys(), dtype="str").replace("", None)
    group, names, unrecognised = parse_race(words, "white_black_asian_other")
    assert group.astype(object).where(group.notna(), None).tolist() == list(SPELLINGS.values())
    assert names == ("white", "black", "asian", "other")
    assert unrecognised == 0


@pytest.mark.parametrize("race_map", ["white_black_asian_other", "white_other"])
def test_words_that_are_no_race_count_as_other_and_are_counted(race_map):
    group, _, unrecognised = parse_race(pd.Series(["White", "Blaack", "Klingon", "Asian"]), race_map)
    assert group.tolist()[1:3] == ["other", "other"]
    assert unrecognised == 2
