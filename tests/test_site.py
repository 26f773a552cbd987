"""The committed report in a real browser, from the file system: links, widths, pictures, headings."""

import functools
import itertools
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pytest
import yaml
from conftest import ROOT
from playwright.sync_api import sync_playwright

REPORTS = ROOT / "reports"
PAGES = sorted(path.relative_to(REPORTS).as_posix() for path in REPORTS.rglob("*.html"))
# One of each kind in the quick tests: the index, the errors, a notebook.
SHOWN = [page if page.endswith(("index.html", "errors.html", "01_handwash_frames.html"))
         else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
WIDTHS = [1280, 390]

READ_PAGE = """() => {
  const links = [];
  for (const element of document.querySelectorAll("*"))
    for (const {name, value} of element.attributes) {
      const values = name === "srcset" ? value.split(",").map(part => part.trim().split(/\\s+/)[0]) : [value];
      if (["href", "xlink:href", "src", "srcset", "poster", "data", "action"].includes(name))
        for (const link of values.filter(link => !link.startsWith("data:"))) {
          let url = "not a link";
          try { url = new URL(link, document.baseURI).href } catch {}
          links.push([element.localName, link, url]);
        }
    }
  const named = [...document.querySelectorAll("[id], a[name]")];
  return {
    links, ids: named.flatMap(element => [element.id, element.getAttribute("name")]).filter(Boolean),
    lang: document.documentElement.lang, title: document.title,
    headings: [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(
      heading => [Number(heading.localName[1]), heading.textContent.trim()]),
    pictures: [...document.querySelectorAll("img")].map(
      picture => [picture.getAttribute("src").slice(0, 80), picture.getAttribute("alt")])};
}"""

# What is wider than the window, tables that lose a column on a desk, what lies outside with no box of its own that
# scrolls there, and tables whose box holds more than the table.
FIND_WIDE = """() => {
  const found = [], root = document.scrollingElement;
  const name = element => `${element.localName}.${element.className} "${element.textContent.trim().slice(0, 40)}"`;
  const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const findBox = element => {
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
      if (scrolls(box)) return box;
  };
  if (innerWidth > 1000)
    for (const box of document.querySelectorAll(".scroll"))
      if (box.scrollWidth > box.clientWidth + 1) found.push(`columns outside of the page: ${name(box)}`);
  if (root.scrollWidth > innerWidth + 1) found.push(`the page: ${root.scrollWidth} of ${innerWidth} pixels`);
  for (const element of document.body.querySelectorAll("*:not(svg *)")) {
    const place = element.getBoundingClientRect(), box = findBox(element);
    if (!place.width || place.right <= innerWidth + 1 || !element.checkVisibility()) continue;
    if (!box) found.push(`to ${Math.round(place.right)}: ${name(element)}`);
    else if (element.localName === "table" && box.querySelector("h1, h2, h3, h4, h5, h6, p"))
      found.push(`not in a box of its own: ${name(element)}`);
  }
  return found;
}"""


def find_inside(url: str) -> Path | None:
    """The file below reports/ that a link leads to, whether it exists or not; None if it leads elsewhere."""
    parts = urlsplit(url)
    path = Path(url2pathname(parts.path)).resolve()
    return path if parts.scheme == "file" and path.is_relative_to(REPORTS) else None


def visit(context, page: str) -> dict:
    """Open a page at each width: what it holds, and what went wrong."""
    tab = context.new_page()
    problems, requests = [], []
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url[:200]}"))
    tab.goto((REPORTS / page).as_uri())
    facts = tab.evaluate(READ_PAGE)
    tab.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true })")
    facts["wide"] = {}
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 800})
        facts["wide"][width] = tab.evaluate(FIND_WIDE)
    tab.close()
    outside = [url[:200] for url in requests
               if urlsplit(url).scheme not in ("data", "blob") and find_inside(url) is None]
    return {**facts, "problems": problems, "outside": outside}


@pytest.fixture(scope="module")
def look():
    """Gives what `visit` finds on a page; each is opened once, with no network."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield functools.cache(functools.partial(visit, browser.new_context(offline=True)))
        browser.close()


def describe_link(look, tag: str, link: str, url: str) -> str | None:
    """What is wrong with a link of a page; None if nothing is."""
    parts, file = urlsplit(url), find_inside(url)
    if parts.scheme in ("data", "blob") or (parts.scheme in ("http", "https") and tag == "a"):
        return None
    if file is None:
        return f"{tag} leads out of the report: {link}"
    if not file.is_file():
        return f"{tag} leads to no file: {link}"
    if file.suffix == ".html" and parts.fragment:
        ids = look(file.relative_to(REPORTS).as_posix())["ids"]
        if parts.fragment not in ids and unquote(parts.fragment) not in ids:
            return f"{tag} leads to no element: {link}"
    return None


@pytest.mark.parametrize("study", ["handwash", "ntu"])
def test_the_report_has_every_table_and_figure_of_the_papers(study):
    contents = yaml.safe_load((ROOT / "notebooks" / "21_report.yaml").read_text())[study]
    wanted = {item[0] for section in ("key", "tables", "charts", "audit", "structures") for item in contents[section]
              if item[0].startswith(("table_", "figure_"))}
    found = {path.name for path in (REPORTS / study).glob("[0-9]*/*")}
    missing = wanted - found
    kinds = {"figure_7.png", "figure_8.png", "figure_9.png"} & missing  # errors that a run may not have
    assert missing == kinds and len([name for name in found if name.startswith("most_certain_")]) == len(kinds)


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_opens_without_error_and_network_and_every_reader_finds_what_it_holds(look, page):
    facts = look(page)
    assert not facts["problems"] and not facts["outside"]
    assert facts["lang"] and facts["title"].strip()
    assert facts["wide"] == {width: [] for width in WIDTHS}, "no page is wider than its window"
    assert not [name for name, text in facts["pictures"] if not (text or "").strip()]
    headings = facts["headings"]
    assert [level for level, _ in headings].count(1) == 1 and headings[0][0] == 1 and all(text for _, text in headings)
    assert not [text for (above, _), (level, text) in itertools.pairwise(headings) if level > above + 1]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(look, page):
    found = [describe_link(look, *link) for link in look(page)["links"]]
    assert not [problem for problem in found if problem]


@pytest.mark.slow
def test_every_page_is_reached_from_the_index(look):
    reached, rest = set(), {"index.html"}
    while rest:
        page = rest.pop()
        reached.add(page)
        files = {find_inside(url) for tag, _, url in look(page)["links"] if tag == "a"}
        rest |= {file.relative_to(REPORTS).as_posix() for file in files if file} & set(PAGES) - reached
    assert reached == set(PAGES)


@pytest.fixture
def draw(look, tmp_path, monkeypatch):
    """Gives what `visit` finds on a page with this body."""
    monkeypatch.setattr("test_site.REPORTS", tmp_path)

    def show(body):
        (tmp_path / "page.html").write_text(f"<!doctype html><html lang=en><title>a</title><body>{body}</body></html>")
        return look.__wrapped__("page.html")

    return show


def test_a_broken_page_is_noticed(draw):
    facts = draw("<script>console.error('one'); throw new Error('two')</script><img src=missing.png>"
                 "<img src='https://example.org/a.png'><a href='https://example.org'>a</a><a href='#no'>b</a>"
                 "<p style='width: 2000px'>wide</p>")
    assert {"one", "two"} <= set(facts["problems"]) and [Path(url).name for url in facts["outside"]] == ["a.png"]
    found = [describe_link(lambda page: facts, *link) for link in facts["links"]]
    assert [problem and problem.partition(":")[0] for problem in found] == [
        "img leads to no file", "img leads out of the report", None, "a leads to no element"]
    assert all(facts["wide"].values())
