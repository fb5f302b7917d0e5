"""The page in a real browser: clicked through, by keyboard, narrow, dark, printed, and never on the network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from audits import METHODS, RHOS, hostile_audit, made_up_audit

from captum_lipschitz.report.content import Audit
from captum_lipschitz.report.page import render

api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")

# Effective colours of everything that holds text: WCAG's contrast, 4.5 for text and 3 for large text.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parsed = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data);
  };
  const light = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parsed(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) { return colour; }
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, .unseen, .skip")) { continue; }
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parsed(colour)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([(a + 0.05) / (b + 0.05), large ? 3 : 4.5, element.outerHTML.slice(0, 120)]);
  }
  return found;
}"""


@dataclass
class Heard:
    """What a page said and asked for while it was open."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """Opens audits, and remembers what each page complained of and asked for."""

    def __init__(self, chromium: Any, folder: Path) -> None:
        self._chromium = chromium
        self._folder = folder
        self.heard = Heard()

    def open(self, audit: Audit, **options: Any) -> Any:
        path = self._folder / "audit.html"
        path.write_bytes(render(audit).encode("utf-8"))
        page = self._chromium.new_context(**options).new_page()
        page.on("console", lambda message: self.heard.errors.append(message.text))
        page.on("pageerror", lambda error: self.heard.errors.append(str(error)))
        page.on("request", lambda request: self.heard.requests.append(request.url))
        page.goto(path.as_uri())
        return page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's browser, or the one that ``CHROMIUM`` names."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium, or CHROMIUM=path)")
    with api.sync_playwright() as playwright:
        # In a container, as root, Chromium's own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any, tmp_path: Path) -> Iterator[Browser]:
    """A browser whose pages must stay silent and off the network, whatever else a test looks at."""
    opened = Browser(chromium, tmp_path)
    yield opened
    assert opened.heard.errors == []
    elsewhere = [url for url in opened.heard.requests if not url.startswith(("data:", tmp_path.as_uri()))]
    assert elsewhere == []
    for context in chromium.contexts:
        context.close()


def shown_rows(page: Any) -> Any:
    return page.locator("#explanations tbody tr:visible")


def column(page: Any, table: str, place: int) -> list[str]:
    return page.locator(f"{table} tbody tr").evaluate_all(
        "(rows, place) => rows.map((row) => row.cells[place].dataset.value)", place
    )


def test_the_picker_shows_the_class_asked_for(browser: Browser) -> None:
    page = browser.open(made_up_audit(images=5))
    assert shown_rows(page).count() == 5
    page.get_by_label("Class explained").select_option(label="cat")
    rows = shown_rows(page)
    assert rows.count() >= 1
    assert all("explained cat" in text for text in rows.all_inner_texts())
    assert re.search(r"Showing \d of 5 images; for the others", page.locator("#shown").inner_text())
    page.get_by_label("Class explained").select_option(label="every class explained")
    assert shown_rows(page).count() == 10


def test_the_picker_works_by_keyboard(browser: Browser) -> None:
    page = browser.open(made_up_audit(images=5))
    page.get_by_label("Class explained").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#class-picker").input_value() == "true"
    texts = shown_rows(page).all_inner_texts()
    assert len(texts) == 5
    for text in texts:
        true, explained = (re.search(rf"{word} (\w+)", text)[1] for word in ("true", "explained"))
        assert true == explained


def test_the_slider_moves_by_keyboard_and_says_where_it_is(browser: Browser) -> None:
    page = browser.open(made_up_audit(images=2))
    slider = page.get_by_label("Size of the change")
    sizes = page.locator("#explanations tbody tr:visible .sizes > span:visible")
    assert [one.get_attribute("data-rho") for one in sizes.all()] == [str(RHOS[0])] * 2
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert [one.get_attribute("data-rho") for one in sizes.all()] == [str(RHOS[1])] * 2
    assert slider.get_attribute("aria-valuetext") == "0.05 RMSE"
    page.keyboard.press("End")
    assert [one.get_attribute("data-rho") for one in sizes.all()] == [str(RHOS[-1])] * 2
    assert page.locator("#rho-value").inner_text() == "0.2 RMSE"


def test_pictures_are_drawn_and_grow(browser: Browser) -> None:
    page = browser.open(made_up_audit(images=2))
    pictures = page.locator("#explanations tbody tr:visible td img:visible")
    assert pictures.count() == 2 * len(METHODS)
    assert all(pictures.evaluate_all("all => all.map((one) => one.complete && one.naturalWidth > 0)"))
    before = pictures.first.bounding_box()["width"]
    page.get_by_label("Larger pictures").check()
    assert pictures.first.bounding_box()["width"] > 2 * before


def test_tables_sort_by_keyboard_and_say_so(browser: Browser) -> None:
    page = browser.open(made_up_audit())
    table = "#invalidation table"
    button = page.locator(table).get_by_role("button", name="Rank correlation")
    head = page.locator(f"{table} thead th").nth(1)
    assert head.get_attribute("aria-sort") is None
    button.focus()
    for key, way, sign in (("Enter", "ascending", 1), ("Space", "descending", -1)):
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == way
        values = column(page, table, 1)
        assert values[-1] == ""
        numbers = [sign * float(value) for value in values[:-1]]
        assert numbers == sorted(numbers)
    page.locator(table).get_by_role("button", name="Method").click()
    assert column(page, table, 0) == sorted(METHODS, key=str.lower)
    assert page.locator(f"{table} thead th[aria-sort]").count() == 1


def test_a_measure_for_which_higher_is_better_starts_with_the_highest(browser: Browser) -> None:
    page = browser.open(made_up_audit())
    page.locator("#fidelity").get_by_role("button", name="Insertion").click()
    assert page.locator("#fidelity thead th").nth(1).get_attribute("aria-sort") == "descending"


def test_two_models_stand_side_by_side(browser: Browser) -> None:
    page = browser.open(made_up_audit(models=("standard", "robust")), viewport={"width": 1400, "height": 900})
    first, second = page.locator(".finding").first.locator(".answer").all()
    assert first.bounding_box()["y"] == second.bounding_box()["y"]
    assert page.locator("#comparison tbody tr").count() == 4
    assert "higher for robust than for standard" in page.locator("#comparison").inner_text()
    assert "too few images to tell" in page.locator("#comparison").inner_text()
    assert page.locator("#robustness polyline").count() == 2
    originals = page.locator("#explanations tbody tr:visible th svg")
    assert originals.count() == 8
    assert originals.first.bounding_box()["width"] > 60


def test_hostile_names_run_nothing_and_change_nothing(browser: Browser) -> None:
    page = browser.open(hostile_audit())
    assert page.title().startswith("Audit of <script>")
    assert page.locator("#taken").count() == 0
    assert page.locator("script").count() == 1
    page.get_by_label("Class explained").select_option(value="class-1")
    page.locator("#fidelity table").first.get_by_role("button").first.click()
    assert page.title().startswith("Audit of <script>")
    assert "<script>document.title='taken'</script>" in page.locator("h1").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_what_is_behind_it(browser: Browser, scheme: str) -> None:
    page = browser.open(made_up_audit(models=("standard", "robust")), color_scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 300
    assert [one for one in found if one[0] < one[1]] == []


def test_the_dark_scheme_is_dark(browser: Browser) -> None:
    colours = {
        scheme: browser.open(made_up_audit(), color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    brightness = {scheme: sum(map(int, re.findall(r"\d+", colour))) for scheme, colour in colours.items()}
    assert brightness["dark"] < 150
    assert brightness["light"] > 600


@pytest.mark.parametrize("audit", [made_up_audit, hostile_audit])
def test_four_hundred_pixels_are_enough(browser: Browser, audit: Any) -> None:
    page = browser.open(audit(), viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for control in ("#class-picker", "#rho-slider", "#larger"):
        box = page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    region = page.locator("#grid .scroll")
    assert region.evaluate("one => one.scrollWidth > one.clientWidth")
    region.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(50):  # it glides; the page's policy forbids playwright's own waiting, which needs eval
        if region.evaluate("one => one.scrollLeft") > 0:
            break
        page.wait_for_timeout(50)
    assert region.evaluate("one => one.scrollLeft") > 0


def test_every_control_is_reached_by_tab_with_a_visible_focus_and_a_name(browser: Browser) -> None:
    page = browser.open(made_up_audit())
    wanted = page.locator("a, button, select, input, summary, [tabindex='0']").filter(visible=True).count()
    reached = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        one = page.evaluate(
            "() => { const one = document.activeElement, style = getComputedStyle(one);"
            " const named = one.getAttribute('aria-label') || one.textContent.trim() || (one.labels || []).length;"
            " return [one.outerHTML.slice(0, 200), style.outlineStyle, parseFloat(style.outlineWidth), !!named,"
            " Array.from(document.querySelectorAll('*')).indexOf(one)]; }"
        )
        assert one[1] != "none", one
        assert one[2] >= 2, one
        assert one[3], one
        reached.add(one[4])
    assert len(reached) == wanted


def test_tables_have_captions_and_scoped_heads(browser: Browser) -> None:
    page = browser.open(made_up_audit(models=("standard", "robust")))
    assert page.locator("table:not(:has(> caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0


def test_without_javascript_everything_is_there_to_read(browser: Browser) -> None:
    audit = made_up_audit(images=3)
    page = browser.open(audit, java_script_enabled=False)
    assert shown_rows(page).count() == 6
    assert page.locator(".sizes > span:visible").count() == 6 * len(RHOS)
    assert not page.locator("#controls").is_visible()
    assert page.locator("button").count() == 0


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(made_up_audit())
    printed = page.pdf(path=tmp_path / "audit.pdf", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 4
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert page.locator("#grid .scroll").evaluate("one => getComputedStyle(one).overflow") == "visible"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
