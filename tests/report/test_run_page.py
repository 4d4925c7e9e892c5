import json
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t

from fairdx.core.errors import InputError
from fairdx.inference.delong import delong
from fairdx.report.pictures import diverging
from fairdx.runs.folder import RunFolder, to_toml
from fairdx.runs.page import rows, supported_best, write_run_report
from fairdx.runs.samples import gallery
from fairdx.runs.words import auc_change, findings, verdict


class Outline(HTMLParser):
    """Headings, addresses and images of a page."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.addresses, self.images, self.scripts = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag[0] == "h" and tag[1:].isdigit():
            self.headings.append(int(tag[1:]))
        self.addresses += [found[k] for k in ("src", "href") if k in found]
        self.scripts += tag == "script"
        if tag == "img":
            self.images.append(found.get("alt"))


def interval(low, value, high):
    return {"low": low, "value": value, "high": high}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"methods": ("vanilla",)},
        {"n_classes": 3, "n_groups": 3},
        {"n_groups": 3, "true": False},
        {"methods": ("vanilla", "faap", "fair_diagnosis")},
    ],
    ids=["two methods", "vanilla only", "three classes and groups", "three groups", "three methods"],
)
def test_a_page_is_whole_and_self_contained(tmp_path, run_maker, options):
    page = write_run_report(run_maker(tmp_path, n=400, **options))
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert page.stat().st_size < 1_000_000
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    assert all(address.startswith(("#", "data:")) for address in outline.addresses)
    assert all(outline.images)
    assert outline.scripts == 0
    assert "<script>alert(1)</script>" not in text
    assert (tmp_path / "samples.png").stat().st_size > 1000
    assert (tmp_path / "figures" / "paths.svg").exists()


def test_figures_on_the_page_are_those_of_results(run_folder):
    text = write_run_report(run_folder).read_text(encoding="utf-8")
    methods = json.loads((run_folder / "results.json").read_text())["methods"]
    for method in methods.values():
        assert f"{method['auroc']['value']:.3f}" in text
        assert f"{abs(method['direct_effect']['value']) * 100:.1f}" in text
        assert f"{method['approximate_diagnosis_fairness']['value']:.5f}" in text
        assert f"{abs(method['at_half']['direct_effect']['value']) * 100:.1f}" in text


def test_a_change_is_only_claimed_where_intervals_are_apart():
    far, near, over = interval(0.08, 0.1, 0.12), interval(0.0, 0.01, 0.02), interval(0.05, 0.07, 0.09)
    assert verdict("direct_effect", far, near) == "improved"
    assert verdict("direct_effect", near, far) == "worse"
    assert verdict("auroc", near, far) == "improved"
    assert verdict("direct_effect", far, over) == "no clear change"
    assert verdict("indirect_effect", far, near) == "changed"
    assert verdict("direct_effect", far, interval(None, None, None)) is None


def test_bold_needs_an_interval_apart_from_all_others():
    far, near, over = interval(0.08, 0.1, 0.12), interval(0.0, 0.01, 0.02), interval(0.05, 0.07, 0.09)
    assert supported_best("direct_effect", [far, near]) == 1
    assert supported_best("direct_effect", [far, over]) is None
    assert supported_best("direct_effect", [far, over, near]) == 2
    assert supported_best("auroc", [far, near]) == 0
    assert supported_best("direct_effect", [far]) is None
    assert supported_best("direct_effect", [None, near]) is None
    assert supported_best("prevalence", [far, near]) is None


def test_the_auc_change_is_paired(run_folder):
    run = RunFolder.read(run_folder)
    difference, low, high, p_value = auc_change(run)
    first, last = run.test_rows("vanilla"), run.test_rows("fair_diagnosis")
    both = delong(first["label"], first["score"], last["score"], patients=first["patient"])
    error = np.sqrt(both.covariance[0, 0] + both.covariance[1, 1] - 2 * both.covariance[0, 1])
    assert difference == pytest.approx(both.auc[1] - both.auc[0])
    by_patient = t(both.n_patients - 1)
    half = by_patient.ppf(0.975) * error
    assert (low, high) == pytest.approx((difference - half, difference + half))
    assert p_value == pytest.approx(2 * by_patient.sf(abs(difference) / error))


def test_the_truth_stands_beside_the_estimate(run_folder):
    run = RunFolder.read(run_folder)
    titles = [row.title for row in rows(run)]
    assert titles[titles.index("Direct effect") + 1] == "True direct effect"
    assert "contains it before and contains it after" in findings(run)[1].text


def test_settings_survive_toml(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    config["method"]["sees"] = ["embedding", "logit"]
    config["data"]["phantom"]["odd key"] = 'a "quoted" name – ü'
    read = tomllib.loads(to_toml(config))
    method = read.pop("method")
    assert method.pop("name") == config.pop("method_name")
    given = config.pop("method")
    assert given["pretraining"].pop("weights") is None  # TOML has no null: left out
    assert method == given
    config["data"] = {"phantom": config["data"]["phantom"]}
    assert read == config


def test_the_mask_is_shown_on_one_symmetric_scale(run_folder):
    run = RunFolder.read(run_folder)
    change = (run.samples["masked"].astype(float) - run.samples["image"]).mean(axis=1)
    assert gallery(run).scale == pytest.approx(np.quantile(np.abs(change), 0.999))
    colours = diverging(np.array([[-2.0, -1.0, 0.0, 1.0]]), 1.0)[0]
    assert colours.tolist() == [[33, 102, 172], [33, 102, 172], [247, 247, 247], [178, 24, 43]]


def test_the_kept_epoch_is_said_and_is_no_curve(run_folder):
    page = write_run_report(run_folder).read_text()
    assert page.count("The weights kept are those of epoch 2.") == 2  # of both stages
    assert ">kept:" not in page


def test_the_sheet_has_a_row_for_each_sample(run_folder):
    write_run_report(run_folder)
    with Image.open(run_folder / "samples.png") as picture:
        assert picture.height == 46 + 8 * 166


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(InputError, match=r"has no results\.json"):
        write_run_report(tmp_path)


def test_a_broken_file_is_named(tmp_path, run_maker):
    run_maker(tmp_path, n=200)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        write_run_report(tmp_path)
