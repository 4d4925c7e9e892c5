import re
from xml.etree import ElementTree

import pytest

from fairdx.report.svg import render
from fairdx.study.figures import make_figures, slug, write_figures
from fairdx.study.page import write_page
from fairdx.study.summary import Summary

COMPARED = {
    "vanilla": ([None], 1, 0),
    "faap": ([None], 0.5, 0.006),
    "threshold_optimizer": ([None], 0.05, 0.002),
    "fair_diagnosis": ([None], 0.06, 0.001),
}
ETA = "method.eta"


def boxes(svg):
    """Where the names beside marks stand, roughly."""
    found = []
    for text in svg.iter("text"):
        place = text.get("class", "").split()
        if place[0] == "value":
            x, y, width = float(text.get("x")), float(text.get("y")), 6.7 * len(text.text)
            left = {"start": x, "end": x - width, "middle": x - width / 2}[place[1]]
            found.append((left, y - 11, left + width, y + 4, text.text))
    return found


def test_the_trade_off_names_every_method_without_overlap(study_maker):
    figure = make_figures(Summary(study_maker(COMPARED)))[0]
    found = boxes(figure.panels[0])
    assert {name for *_, name in found} == {"vanilla", "faap", "threshold_optimizer †", "fair_diagnosis"}
    for i, a in enumerate(found):
        for b in found[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a[4], b[4])


def test_the_front_leaves_out_what_needs_the_group(study_maker):
    rows = study_maker({"vanilla": ([None], 1, 0), "threshold_optimizer": ([None], 0.05, -0.01)})
    drawn = render(make_figures(Summary(rows))[0].panels[0])
    front = re.search(r'd="([^"]*)" class="rule"', drawn).group(1)
    vanilla = re.search(r'transform="translate\(([\d.]+) ([\d.]+)\)" class="mark s0"', drawn).groups()
    assert f" {vanilla[1]}H{vanilla[0]}V" in front
    assert front.count("H") == 1


def test_the_front_leaves_out_what_lacks_runs(study_maker):
    rows = study_maker({"vanilla": ([None], 1, 0), "ours": ([None], 0.05, -0.01)})
    rows = rows[(rows["method"] == "vanilla") | (rows["seed"] > 0)]
    figure = make_figures(Summary(rows))[0]
    drawn = render(figure.panels[0])
    front = re.search(r'd="([^"]*)" class="rule"', drawn).group(1)
    x, y = re.search(r'transform="translate\(([\d.]+) ([\d.]+)\)" class="mark s0"', drawn).groups()
    assert f" {y}H{x}V" in front
    assert front.count("H") == 1
    assert "of which runs are missing" in str(figure)


def test_the_trade_off_keeps_names_off_the_front_and_explains_only_what_it_shows(row_maker):
    import pandas as pd

    made = {"vanilla": ((0.616, 0.632), (0.0003, 0.0045)), "ours": ((0.623, 0.635), (0.0007, 0.0007))}
    rows = pd.DataFrame(
        row_maker(name, seed, auroc=auc[seed], approximate_diagnosis_fairness=adf[seed])
        for name, (auc, adf) in made.items()
        for seed in (0, 1)
    )
    figure = make_figures(Summary(rows))[0]
    front = re.search(r'd="([^"]*)" class="rule"', render(figure.panels[0])).group(1)
    (x, top) = (float(number) for number in re.search(r"H([\d.]+)V([\d.]+)$", front).groups())
    for left, _, right, bottom, name in boxes(figure.panels[0]):
        assert bottom < top or not left < x < right, name
    words = str(figure)
    assert "vanilla's figures" in words
    assert "floor" not in words
    assert "†" not in words


def test_the_floor_is_the_bias_of_the_plug_in(row_maker):
    both = {"approximate_diagnosis_fairness": 0.004, "approximate_diagnosis_fairness_corrected": 0.0035}
    fair = {"approximate_diagnosis_fairness": 0.0001, "approximate_diagnosis_fairness_corrected": 0.0}
    rows = [row_maker("vanilla", s, auroc=0.9, **both) for s in (0, 1)]
    rows += [row_maker("ours", s, auroc=0.8, **fair) for s in (0, 1)]
    import pandas as pd

    assert "floor, 0.5<" in render(make_figures(Summary(pd.DataFrame(rows)))[0].panels[0])


def test_curves_are_drawn_for_every_metric_and_method(study_maker, tmp_path):
    rows = study_maker({"vanilla": ([None], 1, 0), "ours": ([0.1, 0.2, 0.4], 0.5, 0.002)}, key=ETA)
    curves = make_figures(Summary(rows, (ETA,)))[1]
    assert len(curves.panels) == 7
    adf = render(curves.panels[4])
    assert adf.count('class="mark s1"') == 3
    assert adf.count('class="mark s0"') == 0
    assert adf.count('class="line s0"') == 1
    files = write_figures(rows, tmp_path, varied=(ETA,))
    assert [file.name for file in files] == ["tradeoff-phantom.svg", "eta-phantom.svg"]
    for file in files:
        ElementTree.fromstring(file.read_text())


def test_names_are_not_joined_by_a_line(study_maker):
    key = "model.encoder"
    rows = study_maker({"ours": (["resnet18", "resnet50"], 0.5, 0.002)}, key=key)
    drawn = render(make_figures(Summary(rows, (key,)))[1].panels[0])
    assert 'class="line s0"' not in drawn
    assert drawn.count('class="mark s0"') == 2
    assert ">resnet50<" in drawn


def test_two_settings_make_small_multiples_on_one_scale(study_maker):
    import pandas as pd

    encoder = "model.encoder"
    parts = [
        study_maker({"ours": ([0.1, 0.2], factor, 0.002)}, key=ETA).assign(**{encoder: name})
        for name, factor in (("resnet18", 0.9), ("resnet50", 0.3))
    ]
    figure = make_figures(Summary(pd.concat(parts), (ETA, encoder)))[1]
    assert len(figure.panels) == 8
    titles, ticks = [], []
    for panel in figure.panels[:2]:
        texts = list(panel.iter("text"))
        titles.append(next(t.text for t in texts if t.get("class") == "panel-title"))
        ticks.append([t.text for t in texts if t.get("class") == "tick end"])
    assert titles == ["AUC, encoder resnet18", "AUC, encoder resnet50"]
    assert ticks[0] == ticks[1]


HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def page(study_maker, tmp_path):
    rows = study_maker(
        {"vanilla": ([0.1, 0.2, 0.3], 1, 0), HOSTILE: ([0.1, 0.2, 0.3], 0.2, 0.002)}, data=(HOSTILE,), key=ETA
    )
    rows = rows.drop(rows[(rows["method"] == HOSTILE) & (rows["seed"] == 2)].index)
    written = write_page(
        rows, tmp_path, title=HOSTILE, varied=(ETA,), mirrors="table3_eta", failures=[f"{HOSTILE} failed"]
    )
    return written.read_text()


def test_the_page_escapes_everything_and_fetches_nothing(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_the_page_lists_what_is_missing_and_marks_the_papers_figures(page):
    assert page.count("4 of 5 seeds") == 6  # three lines, in the list and in the table
    assert "on other data (MIMIC-CXR, CheXpert, TCGA-LUAD)" in page
    assert 'id="trends"' in page


def test_names_of_files_are_safe():
    assert slug("../HAM10000 age/sex") == "ham10000-age-sex"
    assert slug("💥") == "data"


def test_methods_with_settings_of_their_own_have_a_curve_each(study_maker):
    """As in configs/front.toml: alpha of one method, beta of another, and vanilla without any."""
    import pandas as pd

    alpha, beta = "method.alpha", "method.beta"
    parts = [
        study_maker({"vanilla": ([None], 1, 0), "theirs": ([0.3, 1.0], 0.5, 0.002)}, key=alpha),
        study_maker({"ours": ([1.0, 2.0, 5.0], 0.3, 0.001)}, key=beta),
    ]
    frame = pd.concat(parts).astype({alpha: object, beta: object})
    frame = frame.where(frame.notna(), None)
    figures = make_figures(Summary(frame, (alpha, beta)))
    assert [figure.name for figure in figures] == ["tradeoff-phantom", "alpha-phantom", "beta-phantom"]
    drawn = render(figures[0].panels[0])
    assert [drawn.count(f'class="mark s{i}"') for i in range(4)] == [1, 2, 3, 0]
    assert drawn.count('class="line s2"') == 1
    for label in (">0.3<", ">5<"):
        assert label in drawn
    adf = render(figures[2].panels[4])
    assert [adf.count(f'class="mark s{i}"') for i in range(3)] == [0, 0, 3]
    assert 'class="line s0"' in adf  # vanilla, level
    alone = figures[2].file()  # the legend names who is in this figure, in the colours of the others
    assert "ours" in alone
    assert "theirs" not in alone
    assert 'class="line s2"' in alone[: alone.index("ours")]
