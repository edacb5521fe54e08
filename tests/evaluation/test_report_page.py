"""The report page: complete in itself, every text escaped, and usable in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from html import unescape
from html.parser import HTMLParser

import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft._core.svg import Scale
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation import SwitchingCost, compare
from llama_index_embft.evaluation.pages.charts import Forest
from llama_index_embft.evaluation.pages.examples import excerpt

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
    from llama_index_embft.evaluation.pages import query_table, render_comparison

    monkeypatch.setattr(query_table, "_TEXT_BUDGET", 50_000)
    monkeypatch.setattr(query_table, "_MOST_QUERIES", 7)
    html = render_comparison(evil_comparison, evil_dataset())
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


def text_of(html: str) -> str:
    """What stands on a page before its scripts, without markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html.partition("<body>")[2].partition("<script")[0])).split())


@pytest.fixture(scope="module")
def gain():
    dataset = many_queries()
    pair = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 1.0, seed=5, label="tuned")
    cost = SwitchingCost(texts=120, seconds=48, dollars=0.12, latency=(0.009, 0.012), memory=(412_000_000, 431_000_000))
    return compare(*pair, n_resamples=200).amended(
        command="embft run docs --out 'a b'",
        data="The questions are of <b>users</b>.",
        notes=["Questions were made from the text."],
        costs={"tuned": cost},
    )


def test_a_manager_reads_the_verdict_in_words_before_any_metric(gain, tmp_path) -> None:
    gain.to_html(tmp_path / "r.html", many_queries())
    html = (tmp_path / "r.html").read_text()
    shown = text_of(html)
    words = gain.sentences(gain.systems[0])[0]
    assert re.match(r"Of 100 questions, \d+ more find their page in the first ten", words)
    order = [
        "Retrieval report,", "Tested with 120 questions about 40 documents", "The questions are of <b>users</b>.",
        "Adopt tuned", words, "Significant gain: ndcg@10", "Keep in mind", "Questions were made from the text.",
        "Found better", "Where it got worse", "Share of the questions that find a right page in first place.",
        "What it costs to switch", "120 texts must be embedded anew: 48 s, $0.12.",
        "A query takes 12 ms (median), before 9.0 ms.", "It needs 431 MB of memory, before 412 MB.",
        "How it was measured", gain.date, "llama-index-embft", "embft run docs --out 'a b'", "Missed by both",
    ]  # fmt: skip
    places = [shown.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    headline = [shown.count(f"{name} ") for name in gain.headline()]
    assert all(headline)


def test_examples_show_both_sides_with_the_right_page_and_what_stood_first(gain, tmp_path) -> None:
    gain.to_html(tmp_path / "r.html", many_queries())
    html = (tmp_path / "r.html").read_text()
    better, _, worse = html.partition("Found better")[2].partition("Where it got worse")
    worse = worse.partition("</section>")[0]
    for changes, side, when in ((gain.improved(3), better, "Before"), (gain.harmed(3), worse, "Now")):
        assert changes
        assert side.count('<article class="example">') == len(changes)
        assert all(change.query in text_of(f"<body>{side}") for change in changes)
        assert f"{when} in first place" in side
    first = gain.improved(1)[0]
    row = gain.base.row_of[first.query_id]
    (right,) = gain.base.relevant[row]
    assert many_queries().corpus[right] in text_of(f"<body>{better}")
    assert many_queries().corpus[gain.base.hit_ids[row][0]] in text_of(f"<body>{better}")


def test_where_it_got_worse_comes_first_for_what_must_not_be_adopted(tmp_path) -> None:
    dataset = many_queries()
    compare(noisy_report(dataset, 0.9), noisy_report(dataset, 1.6), n_resamples=200).to_html(
        tmp_path / "r.html", dataset
    )
    shown = text_of((tmp_path / "r.html").read_text())
    assert re.search(r"Do not adopt .*: keep system Of 100 questions, \d+ fewer find their page", shown)
    assert shown.index("Where it got worse") < shown.index("Found better")


def test_what_was_not_measured_is_not_spoken_of(tmp_path) -> None:
    dataset = many_queries(30)
    plain = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 1.6), n_resamples=50)
    plain.to_html(tmp_path / "r.html", dataset)
    html = (tmp_path / "r.html").read_text()
    assert "What it costs to switch" not in html
    assert "Keep in mind" not in html
    assert "No question got better." in html
    assert "No question got worse." in html
    with pytest.raises(EvaluationError, match="There is no system 'x' in this comparison"):
        plain.amended(costs={"x": SwitchingCost(texts=0)})


def test_several_systems_are_told_apart_and_the_chosen_one_comes_first(evil_comparison, tmp_path) -> None:
    evil_comparison.to_html(tmp_path / "r.html")
    shown = text_of((tmp_path / "r.html").read_text())
    assert shown.index("What was found") < shown.index("All systems")
    assert "Proven better than base" in shown
    chosen = evil_comparison.amended(chosen="other", reasons=["Chosen on validation."])
    assert [system.label for system in chosen.systems] == ["other", "tuned"]
    assert chosen.systems[0].reasons[0] == "Chosen on validation."
    chosen.to_html(tmp_path / "r.html")
    shown = text_of((tmp_path / "r.html").read_text())
    assert "What was found" not in shown
    assert f"{chosen.decision.capitalize()} other" in shown
    assert shown.index("Chosen on validation.") < shown.index("The other systems") < shown.index("All systems")
    assert "other chosen" in shown


@pytest.mark.parametrize(
    ("text", "query", "shown", "marked"),
    [
        ("Short text.", "no such thing", "Short text.", []),
        ("a " * 300 + "the quick brown fox jumps", "Which fox is quick?", "the quick brown fox jumps", ["quick"]),
        ("公司的总部在上海。" * 3, "总部在哪里？", "公司的总部在上海。", ["总部在"]),
        ("x" * 5_000, "xx", "xxx", []),
        ("İstanbul is large", "istanbul large", "İstanbul is large", []),  # lower case has another length
    ],
)
def test_an_excerpt_is_the_piece_that_shares_most_words(text, query, shown, marked) -> None:
    parts = excerpt(text, query)
    whole = "".join(part for part, _ in parts)
    assert shown in whole
    assert len(whole) <= 270
    assert list(dict.fromkeys(part for part, mark in parts if mark)) == marked


def test_an_excerpt_of_a_huge_text_of_one_word_is_quick() -> None:
    begin = time.perf_counter()
    excerpt("long " * 40_000, "a long question")
    assert time.perf_counter() - begin < 5  # every pair of words would be a billion steps


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


def test_counts_of_the_table_are_those_of_the_text(tab, evil_comparison) -> None:
    test = evil_comparison.metrics["ndcg@10"].test
    counts = [tab.inner_text(f"[data-count={name}]") for name in ("better", "worse", "same")]
    assert counts == [str(test.wins), str(test.losses), str(test.ties)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_nothing_on_it_is_cut(browser, page, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme=scheme)  # A4 without its margins
    tab.goto(page.as_uri())
    tab.emulate_media(media="print", color_scheme=scheme)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(tab.evaluate(CONTRAST).values()) >= 4.5
    assert tab.evaluate("document.documentElement.scrollWidth") <= 700
    too_wide = tab.evaluate(
        "[...document.querySelectorAll('section, .scroll, figure')].filter(e => e.checkVisibility() && "
        "e.scrollWidth > e.clientWidth + 1).map(e => e.className + e.textContent.slice(0, 40))"
    )
    assert too_wide == []
    for shown, selector in ((False, "#search"), (False, "#table"), (True, ".on-paper"), (True, ".examples >> nth=0")):
        assert tab.locator(selector).is_visible() == shown
    assert len(tab.pdf(format="A4")) > 10_000
    tab.close()


def test_on_a_phone_the_verdict_is_read_without_scrolling_sideways(browser, gain, tmp_path) -> None:
    gain.to_html(tmp_path / "r.html", many_queries())
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto((tmp_path / "r.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    words = tab.locator(".verdict .words")
    assert words.inner_text() == gain.sentences(gain.systems[0])[0]
    assert words.bounding_box()["y"] + words.bounding_box()["height"] < 844
    table = tab.locator(".scroll:has(.metrics)").first  # a metric a card: nothing to scroll for
    assert table.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert tab.locator(".metrics .meaning").first.is_visible()
    widths = tab.locator(".share i").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    counts = [int(text.split()[0]) for text in tab.locator(".verdict .key").all_inner_texts()]
    assert sum(counts) == 120
    assert len(widths) == sum(count > 0 for count in counts)
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
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
    ...["good", "bad", "warn"].map((name) => ["--ink", `--${name}-bg`]), ["--good", "--bg"],
    ...[0, 1, 2, 3, 4, 5].map((i) => ["--t" + i, "--card"])];
  const found = {};
  for (const [front, back] of pairs) {
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    found[front + " on " + back] = (high + 0.05) / (low + 0.05);
  }
  probe.remove();
  return found;
}"""
