"""The pages in a real browser, opened from disk: skipped where there is no Chromium."""

import shutil

import numpy as np
import pytest

from fairdx.auditing.page import write_audit
from fairdx.report.numbers import style_of
from fairdx.runs.page import write_run_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield started
        started.close()


@pytest.fixture(scope="module")
def found(audit_maker):
    return audit_maker(after=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory, run_maker, audit_maker, found):
    folder = tmp_path_factory.mktemp("pages")
    write_audit(found, folder / "audit.html", command="fairdx audit scores.csv")
    rng = np.random.default_rng(2)
    several = audit_maker(
        truth=rng.integers(0, 3, 2000),
        scores=rng.dirichlet(np.ones(3), 2000),
        sensitive_features={"sex": np.array(["f", "m"])[rng.integers(0, 2, 2000)]},
        patients=None,
    )
    write_audit(several, folder / "classes.html")
    return {
        "audit": folder / "audit.html",
        "classes": folder / "classes.html",
        "run": write_run_report(run_maker(folder / "run", n=400, n_groups=3)),
    }


@pytest.fixture
def visit(browser):
    """Opens a page and collects what must not happen; closed at the end."""
    contexts = []

    def opened(path, *, scheme="light", width=1200):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.trouble = []
        page.on("console", lambda m: page.trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: page.trouble.append(str(e)))
        page.on("dialog", lambda d: (page.trouble.append(d.message), d.dismiss()))
        page.on(
            "request",
            lambda r: page.trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["audit", "classes", "run"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_offline_without_error_or_request(visit, pages, name, scheme):
    page = visit(pages[name], scheme=scheme)
    assert page.locator("h1").count() == 1
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.trouble == []


@pytest.mark.parametrize("name", ["audit", "run"])
def test_a_page_fits_a_telephone(visit, pages, name):
    page = visit(pages[name], width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_hostile_group_name_is_text(visit, pages):
    page = visit(pages["audit"])
    assert "<script>alert(1)</script>" in page.locator("body").inner_text()
    assert page.evaluate("[...document.scripts].every(s => !s.textContent.startsWith('alert'))")
    assert page.trouble == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_slider_shows_what_python_computes_at_that_threshold(visit, pages, found, audit_maker, share):
    page = visit(pages["audit"])
    slider = page.locator("[data-explorer=all] input[type=range]")
    place = round(share * int(slider.get_attribute("max")))
    slider.fill(str(place))
    explorer = found.explorer["sex"]
    threshold = explorer.thresholds[place]
    again = audit_maker(threshold=threshold)  # an audit of its own at this operating point

    shown = _tables(page)
    rates = shown["Rates within groups of sex"]
    for group, cells in rates.items():
        for cell, metric in zip(cells, explorer.rates[group], strict=True):
            _same(cell[0], again.by_group["sex"][group][metric].value, metric)
    gaps = shown["Between groups of sex"]
    for cells, (metric, series) in zip(gaps.values(), explorer.gaps.items(), strict=True):
        assert cells[0][0] == style_of(metric)(series.value[place])
        if metric == "approximate_diagnosis_fairness_corrected":  # the bias is that of the audit's threshold
            assert series.value[place] == pytest.approx(again.gaps["sex"][metric].estimate.value, abs=2e-4)
        else:
            _same(cells[0][0], again.gaps["sex"][metric].estimate.value, metric)
        style = style_of(metric)
        assert cells[0][1] == style.interval(series.low[place], series.high[place])
    for group, cells in shown[f"Effects against {found.attributes['sex'].reference}"].items():
        for cell, metric in zip(cells, explorer.effects[group], strict=True):
            _same(cell[0], again.effects["sex"][group][metric].value, metric)
    assert page.locator("[data-explorer=all] output").inner_text() == f"{threshold:.4g}"
    assert page.trouble == []


def _same(text, value, metric):
    """The text is the value as written in Python, or one unit in the last place off where that is a tie."""
    style = style_of(metric)
    if text == style(value):
        return
    shown = float(text.replace("−", "-").replace("+", "")) / style.scale
    assert shown == pytest.approx(value, abs=0.51 * 10.0**-style.digits / style.scale)


def _tables(page):
    """{caption: {row: [(value, interval)]}} of the first explorer."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("[data-explorer=all] table")].filter(
            t => t.querySelector("[data-series]")).map(t => [t.caption.textContent, Object.fromEntries(
            [...t.tBodies[0].rows].map(r => [r.cells[0].firstChild.textContent, [...r.cells].slice(1).map(
            c => [c.querySelector(".value").textContent, c.querySelector(".ends").textContent])]))]))"""
    )


def test_the_slider_works_by_keyboard_and_goes_back(visit, pages):
    page = visit(pages["audit"])
    slider = page.locator("[data-explorer=all] input[type=range]")
    start = slider.input_value()
    before = _tables(page)
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert int(slider.input_value()) == int(start) + 20
    assert slider.get_attribute("aria-valuetext").startswith("threshold 0.")
    assert _tables(page) != before
    page.get_by_role("button", name="Back to 0.5").click()
    assert _tables(page) == before


def test_the_script_leaves_the_figures_python_wrote_at_the_audits_threshold(visit, pages, browser):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(pages["audit"].as_uri())
    written = plain.locator("[data-series] .value").all_text_contents()
    context.close()
    page = visit(pages["audit"])
    assert page.locator("[data-series] .value").all_text_contents() == written


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("audit", "light"), ("audit", "dark"), ("run", "light"), ("run", "dark"), ("classes", "light")],
)
def test_axe_finds_nothing_serious(visit, pages, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = visit(pages[name], scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", ["audit", "run"])
def test_a_page_prints(visit, pages, name):
    page = visit(pages[name])
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 37, 48)"  # dark on white
