import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdx.core.errors import InputError
from fairdx.study.paper import direction, paper_table, trends
from fairdx.study.summary import Summary, t_mean
from fairdx.study.tables import frame, latex, markdown, write_tables

AUCS = {"vanilla": (0.95, 0.94, 0.96), "ours": (0.945, 0.94, 0.949), "other": (0.90, 0.91, 0.89)}
ADFS = {"vanilla": (0.008, 0.009, 0.010), "ours": (0.001, 0.0012, 0.0008), "other": (0.002, 0.002, 0.002)}


@pytest.fixture
def rows(row_maker):
    return pd.DataFrame(
        row_maker(name, seed, auroc=auc, approximate_diagnosis_fairness=adf)
        for name in AUCS
        for seed, (auc, adf) in enumerate(zip(AUCS[name], ADFS[name], strict=True))
    )


def cells(text, label):
    """The cells of the Markdown line that begins with a label."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_means_and_intervals_are_scipys(rows):
    for line in Summary(rows).lines:
        found = line.estimates["auroc"]
        values = np.array(AUCS[line.method])
        low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
        assert found.n == 3


def test_an_interval_is_shown_as_far_as_the_metric_goes(row_maker):
    values = {
        "auroc": (0.99, 0.96),
        "equal_opportunity_difference": (0.01, 0.08),
        "direct_effect": (0.0, 0.1),
    }
    rows = pd.DataFrame(row_maker("one", s, **{name: v[s] for name, v in values.items()}) for s in (0, 1))
    line = Summary(rows).lines[0]
    assert line.estimates["auroc"].high > 1
    assert line.estimates["equal_opportunity_difference"].low < 0
    found = cells(markdown(Summary(rows)), "one")
    assert found[2].endswith("to 100.00)")
    assert found[3].startswith("4.50 (0.00 to ")
    assert found[4].startswith("5.00 (−")  # an effect can be negative


def test_a_study_of_several_strengths_in_which_every_run_failed(row_maker, tmp_path):
    rows = pd.DataFrame(
        row_maker(name, 0, settings={"x": x}) for name, x in (("vanilla", None), ("a", 1), ("a", 2))
    )
    write_tables(rows, tmp_path, varied=("x",), seeds=(0,))
    text = (tmp_path / "table.md").read_text()
    assert cells(text, "a") == ["a", "1", "0 of 1 seed"]
    assert "- phantom, a: none, 0 points, 0 seeds" in text


def test_a_row_of_latex_is_no_option_of_the_line_break_before_it(rows):
    text = latex(Summary(rows.replace({"method": {"ours": "[a]", "other": "*b"}})))
    assert "\n{}[a] & " in text
    assert "\n{}*b & " in text


def test_differences_are_paired_by_seed(rows):
    shuffled = rows.sample(frac=1, random_state=0)
    line = next(line for line in Summary(shuffled).lines if line.method == "ours")
    change = np.subtract(AUCS["ours"], AUCS["vanilla"])
    low, high = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    found = line.differences["auroc"]
    assert (found.value, found.low, found.high) == pytest.approx((change.mean(), low, high))


def test_bold_follows_each_metrics_own_direction(rows):
    text = markdown(Summary(rows))
    assert cells(text, "vanilla")[2].startswith("**95.00**")
    assert cells(text, "ours")[3].startswith("**1.00**")
    assert "**" not in cells(text, "other")[2] + cells(text, "vanilla")[3]


def test_an_effect_is_best_nearest_to_zero_and_equal_figures_share_the_bold(row_maker):
    effects = {"vanilla": 0.08, "over": -0.0200001, "ours": 0.0199999, "far": -0.5}
    rows = pd.DataFrame(row_maker(m, s, direct_effect=e) for m, e in effects.items() for s in (0, 1))
    text = markdown(Summary(rows))
    assert cells(text, "over")[2].startswith("**−2.00**")
    assert cells(text, "ours")[2].startswith("**2.00**")
    assert "**" not in cells(text, "far")[2] + cells(text, "vanilla")[2]


def test_effects_of_both_signs_do_not_win_by_cancelling(row_maker):
    effects = {"swings": (0.05, -0.05), "steady": (0.02, 0.01)}
    rows = pd.DataFrame(
        row_maker(m, s, direct_effect=e) for m, both in effects.items() for s, e in enumerate(both)
    )
    text = markdown(Summary(rows))
    assert cells(text, "swings")[2].startswith("0.00")
    assert cells(text, "steady")[2].startswith("**1.50**")


def test_a_method_that_needs_the_group_is_marked_and_never_best(rows, row_maker):
    oracle = [
        row_maker("oracle", s, needs_group=True, auroc=0.99, approximate_diagnosis_fairness=1e-5)
        for s in range(3)
    ]
    text = markdown(Summary(pd.concat([rows, pd.DataFrame(oracle)])))
    assert "**" not in "".join(cells(text, "oracle †"))
    assert cells(text, "ours")[3].startswith("**")
    assert "needs the group at test time: a limit, not a rival" in text


def test_missing_and_failed_seeds_are_said_and_do_not_win(rows):
    gone = rows[~((rows["method"] == "vanilla") & (rows["seed"] == 1))].copy()
    failed = (gone["method"] == "ours") & (gone["seed"] == 2)
    gone.loc[failed, [c for c in gone.columns if c.startswith(("auroc", "approximate"))]] = np.nan
    text = markdown(Summary(gone))
    assert cells(text, "vanilla")[1] == cells(text, "ours")[1] == "2 of 3 seeds"
    assert cells(text, "other")[1] == "3 seeds"
    assert "**" not in "".join(cells(text, "vanilla") + cells(text, "ours"))
    assert "Lines with missing runs" in text


def test_a_seed_that_failed_everywhere_is_missed_when_it_was_planned(rows):
    assert {line.count for line in Summary(rows, seeds=range(5)).lines} == {"3 of 5 seeds"}


def test_a_metric_that_some_runs_lack_says_so(rows):
    rows.loc[(rows["method"] == "ours") & (rows["seed"] == 0), "auroc"] = np.nan
    assert cells(markdown(Summary(rows)), "ours")[2].endswith("(2 runs)")


def test_one_seed_shows_the_runs_own_interval(row_maker):
    rows = pd.DataFrame([row_maker("vanilla", 0, auroc=(0.9, 0.85, 0.93)), row_maker("ours", 0, auroc=0.8)])
    text = markdown(Summary(rows))
    assert cells(text, "vanilla")[1:] == ["1 seed", "**90.00** (85.00 to 93.00)"]
    assert "bootstrap interval over patients, not over seeds" in text


def test_pooled_folds_show_their_own_interval_and_say_how_many(row_maker):
    rows = [row_maker(m, 0, fold=f, auroc=0.5) for m in ("vanilla", "ours") for f in range(5)][:-1]
    rows += [row_maker(m, None, auroc=(0.8, 0.7, 0.9)) for m in ("vanilla", "ours")]
    text = markdown(Summary(pd.DataFrame(rows)))
    assert cells(text, "vanilla")[1:] == ["5 folds pooled", "80.00 (70.00 to 90.00)"]
    assert cells(text, "ours")[1] == "4 of 5 folds pooled"


def test_runs_that_varied_does_not_tell_apart_are_refused(rows):
    with pytest.raises(InputError, match=r"two runs of vanilla on phantom have seed 0: `varied` leaves"):
        markdown(Summary(pd.concat([rows, rows])))


def test_vanilla_is_matched_at_the_settings_that_it_has(row_maker):
    encoder, eta = "model.encoder", "method.eta"
    settings = [{encoder: e, eta: t} for e in ("resnet18", "resnet50") for t in (0.1, 0.2)]
    rows = [row_maker("ours", s, settings=one, auroc=0.8) for one in settings for s in (0, 1)]
    for name, auc in (("resnet18", 0.9), ("resnet50", 0.7)):
        rows += [row_maker("vanilla", s, settings={encoder: name, eta: None}, auroc=auc) for s in (0, 1)]
    lines = Summary(pd.DataFrame(rows), (encoder, eta)).lines
    found = [(x.values, round(x.differences["auroc"].value, 6)) for x in lines if x.method == "ours"]
    assert found == [
        (("resnet18", 0.1), -0.1),
        (("resnet18", 0.2), -0.1),
        (("resnet50", 0.1), 0.1),
        (("resnet50", 0.2), 0.1),
    ]


def test_csv_holds_all_metrics_in_full(rows, tmp_path):
    write_tables(rows, tmp_path / "new" / "folder")
    table = pd.read_csv(tmp_path / "new" / "folder" / "table.csv")
    pd.testing.assert_frame_equal(table, frame(Summary(rows)), check_dtype=False)
    one = table[(table["method"] == "other") & (table["metric"] == "approximate_diagnosis_fairness")].iloc[0]
    assert one["difference"] == pytest.approx(np.mean(np.subtract(ADFS["other"], ADFS["vanilla"])))
    assert one["mean"] == np.mean(ADFS["other"])


HOSTILE = "a|b_c & 50% \\x <script>{$}#~^*"


def test_hostile_labels_are_escaped(row_maker):
    rows = pd.DataFrame([row_maker(HOSTILE, s, data=HOSTILE, auroc=0.9) for s in (0, 1)])
    text, tex = markdown(Summary(rows)), latex(Summary(rows))
    line = next(line for line in text.splitlines() if line.startswith("| a"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert "<script>" not in text
    assert r"a|b\_c \& 50\% \textbackslash{}x \textless{}script\textgreater{}\{\$\}\#\textasciitilde{}" in tex
    body = re.sub(r"\\[&%$#_{}\\]|\\text\w+\{\}", "", tex.split("\\midrule")[1].split("\\bottomrule")[0])
    assert not re.search(r"[%$#_~^{}]", body.replace("{\\scriptsize (", "").replace(")}", ""))


def test_latex_has_as_many_cells_in_every_row(rows):
    tex = latex(Summary(rows), "table1_main")
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.S):
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") + 1 for line in lines} == {len(block[0])}
    assert r"\textbf{95.00} {\scriptsize (" in tex


def test_the_papers_figures_stand_apart_and_are_marked(rows):
    text = markdown(Summary(rows), "table1_main")
    theirs = text.split("## Table 1 of the paper")[1]
    assert "on other data (MIMIC-CXR, CheXpert, TCGA-LUAD)" in theirs
    assert "| MIMIC | Ours | 62.10 | 84.26 | 2.02 | 3.53 | 2.25 |" in theirs
    with pytest.raises(InputError, match="no table `table9`"):
        markdown(Summary(rows), "table9")


@pytest.mark.parametrize(
    "name", ["table1_main", "table2_backbones", "table2_models", "table3_eta", "table4_alpha", "table5_beta"]
)
def test_every_table_of_the_paper_can_be_read(name):
    table = paper_table(name)
    assert len(table.columns) == 5
    assert set(table.rows["dataset"]) == {"MIMIC", "CheXpert", "TCGA"}
    assert table.rows.notna().all().all()


def test_trends_say_what_the_figures_do(row_maker):
    key = "method.eta"
    rows = pd.DataFrame(
        row_maker(
            "ours",
            seed,
            settings={key: eta},
            auroc=0.95 - 0.1 * eta + 0.001 * seed,
            approximate_diagnosis_fairness=0.001 + 0.01 * eta + 0.0001 * seed,
        )
        for eta in (0.4, 0.1, 0.2, 0.3)
        for seed in (0, 1, 2)
    )
    found = trends(Summary(rows, (key,)), "table3_eta")
    auc, adf = found
    assert auc == (
        "AUC (phantom, ours, eta): ours falls, 94.10 → 91.10 % (change −3.00, −3.00 to −3.00, paired "
        "by seed); "
        "the paper's falls on MIMIC (63.85 → 59.95), falls on CheXpert (65.93 → 61.07), falls on TCGA "
        "(98.58 → 97.63): same direction."
    )
    assert "ours rises, 2.10 → 5.10 10⁻³" in adf
    assert adf.endswith("not the same direction.")
    assert all("the paper's" not in line for line in trends(Summary(rows, (key,)), "table4_alpha"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 2, 3), "rises"),
        ((3, 2, 1), "falls"),
        ((1, 3, 1), "moves both ways"),
        ((2, 2, 2), "moves both ways"),
    ],
)
def test_a_direction_needs_a_clear_trend(values, expected):
    assert direction([0.1, 0.2, 0.3], values) == expected


def test_a_trend_is_of_lines_that_lack_no_run(row_maker):
    """The good seed of the last value is missing: its mean is of another seed than the others'."""
    key, aucs = "method.eta", {0.1: 0.9, 0.2: 0.8, 0.3: 0.7, 0.4: 0.6}
    rows = [
        row_maker("ours", seed, settings={key: eta}, auroc=auc + 0.3 * seed)
        for eta, auc in aucs.items()
        for seed in (0, 1)
        if (eta, seed) != (0.4, 0)
    ]
    (found,) = trends(Summary(pd.DataFrame(rows), (key,)))
    assert "falls, 105.00 → 85.00 %" in found
    assert found.endswith("paired by seed), without 0.4, of which runs are missing.")
    rows[0] |= {name: np.nan for name in rows[0] if name.startswith("auroc")}
    (found,) = trends(Summary(pd.DataFrame(rows), (key,)))
    assert found.endswith("fewer than three values of which no run is missing.")


def test_a_mean_of_few_values_has_no_interval():
    assert t_mean([]).n == t_mean([float("nan")]).n == 0
    one = t_mean([0.5, float("nan")])
    assert (one.value, one.n) == (0.5, 1)
    assert np.isnan(one.low)


def test_a_table_without_its_columns_is_refused(rows):
    with pytest.raises(InputError, match=r"no column `method.eta`"):
        Summary(rows, ("method.eta",))
