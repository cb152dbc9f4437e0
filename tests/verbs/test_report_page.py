"""The report as a person meets it: opened in a browser, pointed at, looked for harm."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tacit.use.compare import Comparison
from tacit.use.report import Picture, ReportContent, Setting, render
from tacit.use.report_page import LIMIT, page
from tacit.use.report_samples import Sample, cloud_of, map_of, neighbours_of

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")  # else the one that Playwright brought
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
HOSTILE = [
    "<img src=x onerror=window.ran=1>.png",
    '"><script>window.ran=1</script>.png',
    "</script><script>window.ran=1</script>.png",
    "' onmouseover='window.ran=1' x='.png",
    "{{ ''.__class__ }}.png",
    "javascript:window.ran=1//.png",
]
POINT = """i => {
  const c = document.getElementById("field"), reach = (v) => Math.max(...v.map(Math.abs));
  const scale = 0.46 * Math.min(c.clientWidth / reach(DATA.map.x), c.clientHeight / reach(DATA.map.y));
  return [c.clientWidth / 2 + DATA.map.x[i] * scale, c.clientHeight / 2 + DATA.map.y[i] * scale];
}"""
DRAWN = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
}"""


def thumbnail(hue: float) -> bytes:
    file = io.BytesIO()
    y, x = np.mgrid[:40, :40] / 40
    Image.fromarray((np.stack([x * hue, y, np.full_like(x, 1 - hue)], axis=2) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def content(samples: int = 60) -> ReportContent:
    draws = np.random.default_rng(0)
    vectors = np.eye(3, 8)[np.arange(samples) % 3] + 0.1 * draws.normal(size=(samples, 8))
    thumbnails = [thumbnail(i * 37 % 60 / 60) for i in range(samples)]
    paths = [HOSTILE[i] if i < len(HOSTILE) else f"photos/{i:03d}.png" for i in range(samples)]
    labels = [("rose", "tulip", HOSTILE[1])[i % 3] for i in range(samples)]
    steps = [float(i) for i in range(1, 201)]
    figures = {"second_view": 0.8, "effective_rank": 20.0}
    return ReportContent(
        title=f"simclr on {HOSTILE[0]}",
        command="tacit pretrain simclr photos",
        verdict={
            "verdict": "learned", "reasons": [HOSTILE[0]], "advice": [], "step": 200, "figures": figures,
            "baselines": {"untrained": {"second_view": 0.2, "effective_rank": 4.0}, "input": {"second_view": 0.4}},
        },
        metrics={"step": steps, "loss": [5 * math.exp(-i / 60) for i in steps], "chance": [5.5] * 200, "lr": [0.1] * 200},
        figures={"step": [0.0, 100.0, 200.0], "second_view": [0.2, 0.6, 0.8], "effective_rank": [4.0, 15.0, 20.0]},
        speed={"step": [9.0], "seconds": [1.0], "samples_per_second": [100.0], "share_waiting": [0.4], "share_forward": [0.5]},
        evaluations=[
            {"protocol": "knn", "metric": "top1", "value": v, "encoder": e, "data": "photos", "split": "test", "seed": 0}
            for e, v in (("run", 0.8), ("untrained", 0.5), ("input", 0.4))
        ],
        pictures=[Picture(thumbnail(0.5), "two views of each sample")],
        map=map_of(vectors, thumbnails, paths, labels),
        neighbours=neighbours_of(vectors, thumbnails, paths, labels, queries=4, k=5),
        skipped=[(name, "broken") for name in HOSTILE],
        settings=[Setting("train.lr", "0.1", "auto: because")],
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    render(content(), path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Visit:
    """A page that was opened, and what it did that a page must not do."""

    def __init__(self, browser, path: Path, **how) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 900}, **how)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.finished: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfinished", lambda request: self.finished.append(request.url))
        self.page.goto(path.as_uri())
        if self.page.locator(".plot").count():  # a function to wait for would be evaluated, which the page forbids
            self.page.locator(".plot canvas").first.wait_for(state="attached")

    def harm(self) -> list[str]:
        outside = [url for url in self.requests if not url.startswith(("file:", "data:"))]
        ran = ["something ran"] if self.page.evaluate("window.ran") else []
        return self.errors + outside + ran


@pytest.fixture
def visit(browser, report) -> Iterator[Visit]:
    opened = Visit(browser, report)
    yield opened
    assert opened.harm() == []
    opened.context.close()


def test_the_page_is_small_and_its_pictures_are_there(visit, report):
    assert report.stat().st_size < LIMIT
    widths = visit.page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth, () => 0)))")
    assert len(widths) == 4 * 6 + 1 + 1
    assert min(widths) > 0


def test_the_curves_are_drawn(visit):
    for place in visit.page.query_selector_all("#curves > .charts .plot canvas"):
        assert place.evaluate(DRAWN) > 10
    visit.page.click("#curves details summary")
    visit.page.wait_for_selector("#curves details .plot canvas")


def test_pointing_at_a_curve_reads_its_values(visit):
    plot = visit.page.locator(".chart.wide .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "step 10" in visit.page.locator(".chart.wide .readout").inner_text()


def test_pointing_at_the_map_shows_the_sample(visit):
    field = visit.page.locator("#field")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert visit.page.locator("#tip").is_hidden()
    for sample in range(len(HOSTILE) + 2):
        x, y = visit.page.evaluate(POINT, sample)
        visit.page.mouse.move(box["x"] + x, box["y"] + y)
        assert visit.page.locator("#tip").is_visible()
        assert visit.page.locator("#tip p").inner_text() in visit.page.evaluate("DATA.map.path")
        assert visit.page.locator("#tip canvas").evaluate(DRAWN) > 50
    visit.page.mouse.move(box["x"] + 2, box["y"] + 2)
    assert visit.page.locator("#tip").is_hidden()


def test_the_tip_shows_the_thumbnail_of_the_sample_that_is_pointed_at(visit):
    field = visit.page.locator("#field")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    for sample in (10, 55):
        x, y = visit.page.evaluate(POINT, sample)
        visit.page.mouse.move(box["x"] + x, box["y"] + y)
        shown = visit.page.evaluate("DATA.map.path").index(visit.page.locator("#tip p").inner_text())
        pixel = visit.page.locator("#tip canvas").evaluate("c => [...c.getContext('2d').getImageData(144, 144, 1, 1).data]")
        expected = Image.open(io.BytesIO(thumbnail(shown * 37 % 60 / 60))).getpixel((20, 20))
        assert np.abs(np.subtract(pixel[:3], expected)).max() < 30


def test_the_map_zooms_and_switches_between_dots_and_pictures(visit):
    shot = lambda: visit.page.locator("#field").evaluate("c => c.toDataURL()")  # noqa: E731
    pictures = shot()
    visit.page.click("button[data-do=dots]")
    dots = shot()
    visit.page.click("button[data-do=in]")
    near = shot()
    visit.page.click("button[data-do=all]")
    assert len({pictures, dots, near}) == 3
    assert shot() == dots


def test_a_click_on_a_label_singles_it_out(visit):
    legend = visit.page.locator("#legend button")
    assert sorted(legend.all_inner_texts()) == sorted(["rose", "tulip", HOSTILE[1]])
    visit.page.click("button[data-do=dots]")
    before = visit.page.locator("#field").evaluate(DRAWN)
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "true"
    assert visit.page.locator("#field").evaluate(DRAWN) != before


def test_file_names_are_shown_as_they_are_and_run_nothing(visit):
    shown = visit.page.locator("#skipped td code").all_inner_texts()
    assert shown == HOSTILE
    assert visit.page.locator("h1").inner_text() == f"simclr on {HOSTILE[0]}"


def test_the_policy_stops_a_script_and_a_request_that_got_in_anyhow(browser, report):
    opened = Visit(browser, report)
    opened.page.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", "<img src='https://example.org/a.png' onerror='window.ran = 1'>");
          const script = document.createElement("script");
          script.textContent = "window.ran = 1";
          document.body.append(script);
        }"""
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.ran") is None
    assert "https://example.org/a.png" not in opened.finished
    assert any("Content Security Policy" in error for error in opened.errors)
    opened.context.close()


@pytest.mark.parametrize(
    "how",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
    ],
    ids=["light", "dark", "phone"],
)
def test_the_page_fits_its_screen_and_its_theme(browser, report, how):
    viewport = how.pop("viewport", {"width": 1200, "height": 900})
    context = browser.new_context(viewport=viewport, **how)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    ground = [int(part) for part in page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")]
    ink = [int(part) for part in page.evaluate("getComputedStyle(document.body).color").strip("rgb()").split(",")]
    assert (sum(ground) < sum(ink)) == (how.get("color_scheme") == "dark")
    context.close()


def test_a_touch_on_the_map_shows_the_sample(browser, report):
    context = browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(report.as_uri())
    page.locator("#field").scroll_into_view_if_needed()
    box = page.locator("#field").bounding_box()
    x, y = page.evaluate(POINT, 20)
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    page.wait_for_selector("#tip", state="visible")
    context.close()


def test_the_comparison_draws_its_curves_without_harm(browser, tmp_path):
    Comparison({HOSTILE[0]: content(), HOSTILE[1]: content()}).write(tmp_path / "compare.html")
    opened = Visit(browser, tmp_path / "compare.html")
    for canvas in opened.page.query_selector_all(".plot canvas"):
        assert canvas.evaluate(DRAWN) > 10
    assert opened.page.locator("thead th").all_inner_texts()[1:3] == HOSTILE[:2]
    assert opened.harm() == []
    opened.context.close()


# Clouds


@pytest.fixture
def clouds(tmp_path) -> Path:
    points = np.random.default_rng(0).normal(size=(500, 4)) * (3, 1, 1, 1)
    path = tmp_path / "clouds.html"
    shown = [Sample(thumbnail(0.2), name, "", cloud_of(points[:, : 3 + (i % 2)])) for i, name in enumerate(HOSTILE[:3])]
    path.write_bytes(page(content(), shown))
    return path


def test_a_cloud_turns_under_the_mouse_and_by_keys(browser, clouds):
    opened = Visit(browser, clouds)
    canvases = opened.page.locator("#samples canvas")
    assert canvases.count() == 3
    first = canvases.first
    first.scroll_into_view_if_needed()
    look = lambda: first.evaluate("canvas => canvas.toDataURL()")  # noqa: E731
    assert first.is_visible()
    assert first.evaluate(DRAWN) > 10
    seen, box = [look()], first.bounding_box()
    opened.page.mouse.move(box["x"] + 100, box["y"] + 100)
    opened.page.mouse.move(box["x"] + 130, box["y"] + 110)
    assert look() == seen[0]  # not before it is held
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 190, box["y"] + 140)
    opened.page.mouse.up()
    seen.append(look())
    first.focus()
    opened.page.keyboard.press("ArrowLeft")
    seen.append(look())
    assert len(set(seen)) == 3
    assert canvases.nth(1).evaluate(DRAWN) > first.evaluate(DRAWN)  # its values have a colour of their own
    assert opened.harm() == []
    opened.context.close()


def test_without_scripts_the_picture_of_a_cloud_is_there(browser, clouds):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(clouds.as_uri())
    assert opened.locator("#samples img").first.is_visible()
    assert opened.locator("#samples canvas").first.is_hidden()
    context.close()
