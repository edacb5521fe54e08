"""The report page: complete in itself, every text escaped, and usable in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft._core.svg import Scale
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.evaluation import compare
from llama_index_embft.evaluation.pages.charts import Forest

EVIL = "<script>window.broken = 1</script>\"'&amp;</script><!-- ]]> {{ 7 * 7 }}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def evil_dataset() -> EmbeddingQAFinetuneDataset:
    """Sixty queries with everything in their texts that could break a page."""
    dataset = many_queries(60)
    fields = dataset.model_dump()
    fields["queries"]["q000"] = f"evil query {EVIL}"
    fields["queries"]["q001"] = "שאלה בעברית: מהו ההסכם?"
    fields["queries"]["q002"] = "公司的总部在哪里？"
    fields["corpus"]["c000"] = f"evil document {EVIL}"
    fields["corpus"]["c001"] = "טקסט מימין לשמאל"
    fields["corpus"]["c002"] = "long " * 20_000
    return EmbeddingQAFinetuneDataset(**fields)


@pytest.fixture(scope="module")
def evil_comparison():
    dataset = evil_dataset()
    base = noisy_report(dataset, 1.6, label=f"base {EVIL}")
    tuned = noisy_report(dataset, 0.9, label="tuned")
    other = noisy_report(dataset, 1.3, label="other")
    slices = {"kind <b>": dict.fromkeys(dataset.queries, EVIL)}
    return compare(base, tuned, other, slices=slices, guard={"guard <i>": (base, base, tuned)}, n_resamples=200)


@pytest.fixture(scope="module")
def page(evil_comparison, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    evil_comparison.to_html(path, evil_dataset())
    return path


class Tags(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.links, self.open_script = [], [], False

    def handle_starttag(self, tag: str, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        self.open_script = tag == "script"
        if self.open_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open_script = False

    def handle_data(self, data: str) -> None:
        if self.open_script:
            self.scripts[-1] += data


def test_page_is_complete_and_escaped(page) -> None:
    html = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert all(link.startswith(("#", "data:")) for link in tags.links)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert len(tags.scripts) == 2  # the data and the page's own script; none from a text
    assert "window.broken" not in tags.scripts[1]
    data = json.loads(tags.scripts[0])
    assert data["queries"][0]["text"] == f"evil query {EVIL}"
    assert any(text and text.endswith(EVIL) for _, text in data["documents"])
    assert "{{ 7 * 7 }}" in html  # shown, not computed
    assert "base &lt;script&gt;" in html


def test_page_without_a_data_set_shows_ids(evil_comparison, tmp_path) -> None:
    evil_comparison.to_html(tmp_path / "r.html")
    tags = Tags()
    tags.feed((tmp_path / "r.html").read_text())
    data = json.loads(tags.scripts[0])
    assert all(text is None for _, text in data["documents"])
    evil_comparison.to_html(tmp_path / "r.html", many_queries(3).subset(["q000"]))
    assert "None of these" not in (tmp_path / "r.html").read_text()
    strange = EmbeddingQAFinetuneDataset(queries={"x": "y"}, corpus={"c": "d"}, relevant_docs={"x": ["c"]})
    evil_comparison.to_html(tmp_path / "r.html", strange)
    assert "has none of these queries" in (tmp_path / "r.html").read_text()


def test_big_pages_are_cut_and_say_so(evil_comparison, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from llama_index_embft.evaluation.pages import page as report

    monkeypatch.setattr(report, "_TEXT_BUDGET", 50_000)
    monkeypatch.setattr(report, "_MOST_QUERIES", 7)
    html = report.render_comparison(evil_comparison, evil_dataset())
    assert len(html) < 300_000
    assert "the 7 queries that changed most, of 60" in html
    assert re.search(r"Texts are cut after [\d,]+ characters", html)


def test_one_query_and_nothing_found_still_make_a_page(tmp_path) -> None:
    one = many_queries(1)
    report = noisy_report(one, 0.1, ks=(1,))
    compare(report, report, n_resamples=10).to_html(tmp_path / "r.html", one)
    assert "No difference" in (tmp_path / "r.html").read_text()


def test_plots_are_well_formed_and_escaped(evil_comparison, tmp_path) -> None:
    from xml.etree import ElementTree

    paths = evil_comparison.save_plots(tmp_path / "plots")
    names = ["differences-1", "differences-2", "recall", "scores-base", "scores-tuned-1", "scores-tuned-2"]
    assert sorted(path.name for path in paths) == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in (path for path in paths if path.suffix == ".svg"):
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not root.findall(".//{http://www.w3.org/2000/svg}script")


def test_importing_evaluation_is_light() -> None:
    code = (
        "import sys, llama_index_embft.evaluation\n"
        "heavy = {'torch', 'scipy', 'pandas', 'llama_index.core', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_axis_has_round_ticks() -> None:
    axis = Scale(0.13, 0.87, 0, 100)
    assert [label for _, label in axis.ticks()] == ["0.2", "0.4", "0.6", "0.8"]
    assert [label for _, label in Scale(0, 1, 0, 1, 4).ticks()] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert axis(0.13) == 0
    assert axis(0.87) == 100
    assert Scale(1, 1, 0, 10)(1) == 5  # one value only: in the middle
    forest = Forest([(-0.01, 0.03)])
    assert forest.row(0.5, (-9.0, 9.0)) == forest.row(0.03, (-0.03, 0.03))  # cut at the edge
    assert forest.row(0.0, (float("nan"), 0.1)) is None


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, page):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    problems, requests = [], []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


def rows(tab) -> int:
    return tab.locator("#table tbody > tr:not(.detail)").count()


def test_texts_stay_texts(tab) -> None:
    assert tab.evaluate("window.broken") is None
    tab.fill("#search", "evil query")
    assert rows(tab) == 1
    assert tab.locator(".row-toggle").first.inner_text() == f"evil query {EVIL}"
    tab.locator(".row-toggle").first.click()
    assert tab.evaluate("window.broken") is None
    assert tab.locator(".detail script, .detail b").count() == 0


def test_search_filter_sort_and_more(tab) -> None:
    assert rows(tab) == 50
    tab.click("#more")
    assert rows(tab) == 60
    assert tab.locator("#more").is_hidden()
    tab.fill("#search", "thing 17")
    assert rows(tab) == 1
    assert "1 of 1 queries" in tab.inner_text("#status")
    tab.fill("#search", "no such words")
    assert rows(tab) == 0
    assert tab.inner_text("#status") == "No query matches."
    tab.fill("#search", "")

    shown = {}
    for name in ("all", "better", "worse", "same"):
        tab.locator(f"input[name=filter][value={name}]").check(force=True)
        shown[name] = int(tab.inner_text(f"[data-count={name}]"))
        assert rows(tab) == min(50, shown[name])
    assert shown["all"] == 60 == shown["better"] + shown["worse"] + shown["same"]
    tab.locator("input[name=filter][value=all]").check(force=True)

    tab.click("[data-sort=baseRank]")
    ranks = tab.locator("#table tbody td:nth-child(2)").all_inner_texts()
    numbers = [99 if rank == "–" else int(rank) for rank in ranks]
    assert numbers == sorted(numbers)
    assert tab.get_attribute("th:has([data-sort=baseRank])", "aria-sort") == "ascending"
    tab.click("[data-sort=baseRank]")
    assert tab.locator("#table tbody td:nth-child(2)").first.inner_text() == "–"


def test_a_query_opens_by_keyboard_with_hits_side_by_side(tab) -> None:
    tab.fill("#search", "q002")
    toggle = tab.locator(".row-toggle").first
    toggle.focus()
    tab.keyboard.press("Enter")
    assert toggle.get_attribute("aria-expanded") == "true"
    assert tab.locator(".sides > div").count() == 2
    left, right = (tab.locator(".sides > div").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    assert tab.locator(".hit.right").count() >= 1
    long = tab.locator(".hit:has-text('Show all 100,000 characters')").first
    assert len(long.locator("p").inner_text()) < 600
    long.locator("button").click()
    assert len(tab.locator(".hit p:focus").inner_text()) >= 99_000
    toggle.focus()
    tab.keyboard.press("Space")
    assert tab.locator(".detail").count() == 0


def test_words_are_highlighted_and_right_to_left_text_is_laid_out(tab) -> None:
    tab.fill("#search", "thing 17")
    tab.locator(".row-toggle").first.click()
    assert "thing" in tab.locator("mark").all_inner_texts()
    tab.fill("#search", "q001")
    span = tab.locator(".row-toggle span").first
    assert span.evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_systems_can_be_switched(tab) -> None:
    before = tab.inner_text("[data-count=better]")
    tab.select_option("#system", label="other")
    assert tab.inner_text("[data-count=better]") != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(browser, page, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.goto(page.as_uri())
    tab.locator(".row-toggle").first.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    contrast = tab.evaluate(CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast
    small = tab.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert small >= 11
    tab.close()


# Contrast (WCAG) of the colours that carry text, against the backgrounds they stand on.
CONTRAST = """() => {
  const style = getComputedStyle(document.documentElement);
  const probe = document.createElement("i");
  document.body.append(probe);
  const luminance = (name) => {
    probe.style.color = style.getPropertyValue(name);
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [["--ink", "--bg"], ["--soft", "--bg"], ["--soft", "--card"], ["--ink", "--mark"], ["--base", "--card"],
    ["--good", "--card"], ["--bad", "--card"], ["--good", "--good-bg"], ["--bad", "--bad-bg"], ["--warn", "--warn-bg"],
    ...[0, 1, 2, 3, 4, 5].map((i) => ["--t" + i, "--card"])];
  const found = {};
  for (const [front, back] of pairs) {
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    found[front + " on " + back] = (high + 0.05) / (low + 0.05);
  }
  probe.remove();
  return found;
}"""
