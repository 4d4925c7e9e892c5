"""Tables that lose rows in a parser that trusts their quotation marks."""

import csv
import io
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdx.core.errors import InputError
from fairdx.data.cells import row_of
from fairdx.data.tabular import SHORT_ROWS, read_any_table, read_text_table

ROWS = [["image", "patient", "note", "y"], *([f"{i}.png", f"p{i}", "scar", "1"] for i in range(1, 41))]


def write(path, rows=ROWS, separator=","):
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    return path


def with_cell(row, column, value, more=()):
    rows = [list(cells) for cells in ROWS]
    for at, cell in ((row, value), *more):
        rows[at][column] = cell
    return rows


def test_a_stray_quote_in_a_tsv_is_a_character(tmp_path):
    rows = with_cell(3, 2, '"scar', [(8, 'old"'), (9, '5" wide'), (10, '"whole"')])
    table = read_text_table(write(tmp_path / "a.tsv", rows, "\t"), separator="\t")
    assert len(table) == 40
    assert table["note"].iloc[[2, 7, 8, 9]].tolist() == ['"scar', 'old"', '5" wide', "whole"]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (with_cell(3, 2, '"scar', [(13, 'old"')]), 4),  # closes behind ten rows
        (with_cell(3, 2, '"scar', [(4, 'old"')]), 4),  # behind the next
        (with_cell(3, 2, '"scar', [(13, '"old')]), 4),
        (with_cell(3, 2, '"scar'), 4),  # never closes
        (with_cell(3, 2, '"scar"s'), 4),
        (with_cell(40, 3, '"1'), 41),
    ],
)
def test_a_stray_quote_in_a_csv_is_refused_with_its_line(tmp_path, rows, line):
    with pytest.raises(
        InputError, match=rf"a\.csv cannot be read as a table: .*quotation mark.*\bline {line}\b"
    ):
        read_text_table(write(tmp_path / "a.csv", rows))


def test_quotes_that_fit_are_read(tmp_path):
    notes = ['"a, b"', '"two\nlines"', '"a ""word"""', '5" wide', '"one, two,\nthree\n\nfour"']
    rows = with_cell(1, 2, notes[0], list(enumerate(notes[1:], start=2)))
    path = write(tmp_path / "a.csv", rows)
    table = read_text_table(path)
    expected = list(csv.reader(io.StringIO(path.read_text())))[1:]
    assert table.to_numpy().tolist() == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_numbered_as_an_editor_shows_them(tmp_path, end):
    lines = ["", "a,b", "1,2", "", "  ", "3,x", "", ""]
    (tmp_path / "a.csv").write_text(end.join(lines), newline="")
    table = read_text_table(tmp_path / "a.csv")
    assert table.to_numpy().tolist() == [["1", "2"], ["3", "x"]]
    assert row_of(table, table["b"] == "x") == "6"
    (tmp_path / "a.csv").write_text(end.join(['"a",b', "1,2", "", '3,"x"']), newline="")
    table = read_text_table(tmp_path / "a.csv")
    assert row_of(table, table["b"] == "x") == "4"


@pytest.mark.parametrize("only", [None, lambda name: name in ("image", "y")])
def test_a_row_that_is_too_long_is_refused_even_where_few_columns_are_read(tmp_path, only):
    rows = with_cell(5, 2, "scar, old")
    with pytest.raises(InputError, match="line 6 has 5 cells, more than the 4 of the header"):
        read_text_table(write(tmp_path / "a.csv", rows), only=only)


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_that_lack_cells_are_blank_counted_and_named(tmp_path, caplog, quoted):
    # Excel leaves out blank cells at the end of rows.
    rows = [
        *ROWS[:5],
        ["5.png", "p5"],
        [],
        *ROWS[6:9],
        ["9.png", '"p9"' if quoted else "p9", "x"],
        *ROWS[10:],
    ]
    table = read_text_table(write(tmp_path / "a.csv", rows))
    assert table["y"].isna().sum() == 2
    assert table["note"].isna().sum() == 1
    assert table.attrs[SHORT_ROWS] == 2
    assert "a.csv: 2 rows have fewer cells than the 4 of the header, the first is line 6" in caplog.text
    caplog.clear()
    assert SHORT_ROWS not in read_text_table(write(tmp_path / "a.csv")).attrs
    assert not caplog.records


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_file_that_breaks_off_within_its_last_row_is_refused(tmp_path, quote):
    path = write(tmp_path / "a.csv", with_cell(2, 2, f"{quote}scar{quote}"))
    path.write_bytes(path.read_bytes()[:-8])  # "40.png,p40" is left of the last row
    with pytest.raises(InputError, match="it breaks off in line 41, before the last of 4 cells"):
        read_text_table(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.xlsx"])
def test_a_header_that_is_there_twice(tmp_path, name):
    rows = [["image", "sex", " sex"], ["1.png", "m", "f"]]
    if name == "a.xlsx":
        pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
        pd.DataFrame(rows).to_excel(tmp_path / name, header=False, index=False)
    else:
        write(tmp_path / name, rows, "," if name == "a.csv" else "\t")
    with pytest.raises(InputError, match=r"has two columns 'sex': rename one of them"):
        read_any_table(tmp_path / name)


def test_columns_without_a_name_are_no_header_twice(tmp_path):
    table = read_text_table(write(tmp_path / "a.csv", [["a", "", ""], ["1", "2", "3"]]))
    assert table.to_numpy().tolist() == [["1", "2", "3"]]


def test_a_workbook_called_csv_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(InputError, match="is an archive or a workbook, not text"):
        read_text_table(tmp_path / "a.csv")


def test_words_of_a_workbook_are_kept_as_those_of_text(tmp_path):
    """A grade called None is no blank; an error of a formula is."""
    pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
    rows = [["image", "grade"], ["NA", "None"], ["null", "n/a"], ["x", None], ["y", "#N/A"]]
    pd.DataFrame(rows).to_excel(tmp_path / "a.xlsx", header=False, index=False)
    pd.DataFrame(rows[:4]).to_csv(tmp_path / "a.csv", header=False, index=False)
    table = read_any_table(tmp_path / "a.xlsx")
    assert table["image"].tolist() == ["NA", "null", "x", "y"]
    assert table["grade"].fillna("").tolist() == ["None", "n/a", "", ""]
    pd.testing.assert_frame_equal(table.iloc[:3], read_any_table(tmp_path / "a.csv"))


def test_parquet_is_read_as_it_is_stored(tmp_path):
    """Whole numbers beside blanks are not rounded, and an index is kept if it has a name."""
    data = pd.DataFrame({"number": pd.array([2**60 + 1, None], "Int64")}, index=["a.png", "b.png"])
    data.rename_axis("image").to_parquet(tmp_path / "named.parquet")
    table = read_any_table(tmp_path / "named.parquet", ["image", "number"])
    assert table["image"].tolist() == ["a.png", "b.png"]
    assert table["number"].fillna("").tolist() == [str(2**60 + 1), ""]
    data.to_parquet(tmp_path / "nameless.parquet")
    assert list(read_any_table(tmp_path / "nameless.parquet")) == ["number"]


def test_rows_of_a_workbook_are_numbered_as_it_shows_them(tmp_path):
    pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
    rows = [[None, None], ["a", "b"], ["1", "2"], [None, None], ["3", "x"]]
    pd.DataFrame(rows).to_excel(tmp_path / "a.xlsx", header=False, index=False)
    table = read_any_table(tmp_path / "a.xlsx", ["a"])
    assert table.to_numpy().tolist() == [["1", "2"], ["3", "x"]]
    assert row_of(table, table["b"] == "x") == "5"


cells = st.text(alphabet='ab",\n ;', max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5))
def test_what_a_csv_writer_wrote_is_read_whole_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("x", "y", "z"), *rows])
    try:
        table = read_text_table(path)
    except InputError:  # a cell that looks like rows
        lines = path.read_text().split("\n")
        assert any(one.count(",") == after.count(",") == 2 for one, after in pairwise(lines))
        return
    expected = [[cell.strip() for cell in row] for row in rows]
    found = table.astype(object).where(table.notna(), "").to_numpy().tolist()
    assert found == [row for row in expected if any(row)] or found == expected
