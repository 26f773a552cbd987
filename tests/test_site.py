"""The committed report in a real browser, from the file system: links, widths, pictures, headings, colours."""

import functools
import itertools
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import sync_playwright
from skimage.color import rgb2lab

REPORTS = ROOT / "reports"
PAGES = sorted(path.relative_to(REPORTS).as_posix() for path in REPORTS.rglob("*.html"))
# One of each kind in the quick tests: the index, the errors, a notebook.
SHOWN = [page if page.endswith(("index.html", "errors.html", "01_handwash_frames.html"))
         else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
WIDTHS = [1280, 390]
# Matrices of severity 1 for linear RGB: Machado, Oliveira, Fernandes, "A physiologically-based model for
# simulation of color vision deficiency", IEEE Transactions on Visualization and Computer Graphics 15 (6), 2009.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}

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

# What is wider than the window, what lies outside it with no box of its own that scrolls there, and tables whose box
# holds more than the table.
FIND_WIDE = """() => {
  const found = [], root = document.scrollingElement;
  const name = element => `${element.localName}.${element.className} "${element.textContent.trim().slice(0, 40)}"`;
  const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const findBox = element => {
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
      if (scrolls(box)) return box;
  };
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

# Texts whose contrast is too low (WCAG 2, 1.4.3).
FIND_PALE = """() => {
  const read = color => { const [r, g, b, alpha = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, alpha]; };
  const lay = ([r, g, b, alpha], under) => [r, g, b].map((value, place) => value * alpha + under[place] * (1 - alpha));
  const measure = color => color.map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("script, style, svg")) continue;
    const around = [];
    for (let outer = element; outer; outer = outer.parentElement) around.unshift(getComputedStyle(outer));
    const behind = around.reduce((under, style) => lay(read(style.backgroundColor), under), [255, 255, 255]);
    const style = around.at(-1), size = parseFloat(style.fontSize);
    const [dark, light] = [measure(lay(read(style.color), behind)), measure(behind)].sort((one, other) => one - other);
    const contrast = (light + 0.05) / (dark + 0.05), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5) - 0.005) found.add(`${contrast.toFixed(2)}: "${text.slice(0, 40)}"`);
  }
  return [...found];
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
    facts["wide"], facts["pale"] = {}, tab.evaluate(FIND_PALE)
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


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_opens_without_error_and_network_and_every_reader_finds_what_it_holds(look, page):
    facts = look(page)
    assert not facts["problems"] and not facts["outside"]
    assert facts["lang"] and facts["title"].strip()
    assert facts["wide"] == {width: [] for width in WIDTHS}, "no page is wider than its window"
    assert not facts["pale"], "texts stand out from their background"
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
                 "<p style='width: 2000px'>wide</p><p style='color: #777; background: #fff'>pale</p>")
    assert {"one", "two"} <= set(facts["problems"]) and [Path(url).name for url in facts["outside"]] == ["a.png"]
    found = [describe_link(lambda page: facts, *link) for link in facts["links"]]
    assert [problem and problem.partition(":")[0] for problem in found] == [
        "img leads to no file", "img leads out of the report", None, "a leads to no element"]
    assert all(facts["wide"].values()) and "4.48" in facts["pale"][0]


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colours_of_charts_stay_apart_for_the_colour_blind(vision):
    """Distance in CIE Lab (CIE76). For the colour-blind, matplotlib's default colours come as near as 5."""
    cycle = matplotlib.rc_params_from_file(ROOT / "matplotlibrc", use_default_template=False)["axes.prop_cycle"]
    values = np.array([matplotlib.colors.to_rgb(f"#{color.lstrip('#')}") for color in cycle.by_key()["color"][:5]])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISIONS[vision].T).clip(0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(lab, 2)) > 15
