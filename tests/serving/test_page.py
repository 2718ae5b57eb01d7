"""The page in a real browser: by mouse, keyboard, clipboard, drop; accessible by axe's rules."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving_support import running_server

from classification.deployment.predictor import Prediction

expect.set_options(timeout=30_000)  # a busy machine is no failure
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PASTE_OR_DROP = """([kind, data, name]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "image/png"}));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
        : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"there is no browser: none of {', '.join(BROWSERS)}"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; .ci/run installs one")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, server) -> Iterator[Page]:
    """Return the open page; a script's error, or anything loaded from elsewhere, fails the test."""
    context = browser.new_context()
    made = context.new_page()
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda m: wrong.append(m.text) if "Content Security" in m.text else None)
    made.on("request", lambda r: None if ours(r.url, server.url) else wrong.append(r.url))
    made.goto(server.url)
    yield made
    context.close()
    assert wrong == []


def ours(url: str, service: str) -> bool:
    return url.startswith((service + "/", "blob:" + service, "data:"))


def check_answer(page: Page, name: str, expected: Prediction) -> None:
    status = page.get_by_role("status")
    expect(status).to_have_text(re.compile(rf"^{re.escape(name)}: {expected.class_names[0]}, "))
    rows = page.locator("#bars li")
    expect(rows).to_have_count(3)
    for row, wanted, probability in zip(
        rows.all(), expected.class_names, expected.probabilities, strict=True
    ):
        assert row.locator("span").first.inner_text() == wanted
        shown = float(row.locator("span").last.inner_text().removesuffix(" %"))
        assert shown == pytest.approx(100 * probability, abs=1)
        width = row.evaluate("row => parseFloat(getComputedStyle(row).backgroundSize)")
        assert width == pytest.approx(100 * probability, abs=1)
    expect(page.get_by_role("img", name=name)).to_be_visible()


def test_choosing_a_file(page: Page, image: Path, expected: Prediction) -> None:
    page.locator("#file").set_input_files(image)
    check_answer(page, image.name, expected)


def test_by_keyboard_alone(page: Page, image: Path, expected: Prediction) -> None:
    reached = []
    expect(page.get_by_label("Model")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["model", "theme", "file"]
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(image)
    check_answer(page, image.name, expected)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The history is empty.")
    assert page.evaluate("document.activeElement.id") == "file"


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page: Page, image: Path, expected: Prediction, kind: str) -> None:
    data = base64.b64encode(image.read_bytes()).decode()
    page.evaluate(PASTE_OR_DROP, [kind, data, "x<b>.png"])
    check_answer(page, "x<b>.png", expected)
    assert page.locator("b").count() == 0  # names are text, not markup


def test_dragging_over_shows_where(page: Page, image: Path) -> None:
    for kind, shown in (("dragover", True), ("dragleave", False)):
        page.evaluate(PASTE_OR_DROP, [kind, "", "a.png"])
        assert ("over" in page.locator("#drop").get_attribute("class").split()) == shown


def test_history(page: Page, data: dict[str, Path]) -> None:
    files = sorted((data["val"] / "blue").iterdir())[:3]
    page.locator("#file").set_input_files(files)
    entries = page.locator("#history button")
    expect(entries).to_have_count(3)
    expect(entries.first).to_contain_text(f"{files[2].name}: ")
    entries.last.click()
    expect(page.get_by_role("status")).to_contain_text(f"{files[0].name}: ")
    expect(page.locator("#image")).to_have_attribute("alt", files[0].name)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#past")).to_be_hidden()


def test_a_refusal_says_why(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    page.locator("#file").set_input_files(bad)
    expect(page.get_by_role("status")).to_contain_text("bad.png: not an image in one of")
    expect(page.locator("#past")).to_be_hidden()


def test_models_can_be_chosen(page: Page, image: Path) -> None:
    page.get_by_label("Model").select_option("whole")
    page.locator("#file").set_input_files(image)
    expect(page.locator("#details")).to_contain_text("model whole, ")


def test_dark_mode_is_remembered(page: Page) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    button = page.get_by_role("button", name="Dark mode")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(back)
    assert sum(map(int, re.findall(r"\d+", dark))) < 200 < sum(map(int, re.findall(r"\d+", light)))
    page.reload()
    assert page.evaluate(back) == dark


def test_dark_mode_of_the_system(browser: Browser, server) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(server.url)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 1280])
def test_screen_readers_and_small_screens(page: Page, image: Path, dark: bool, width: int) -> None:
    """No rule of WCAG that axe can check is broken, and nothing lies beside a phone's screen."""
    page.set_viewport_size({"width": width, "height": 700})
    if dark:
        page.get_by_role("button", name="Dark mode").click()
    page.locator("#file").set_input_files(image)
    expect(page.locator("#bars li")).to_have_count(3)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")


def test_the_key_is_asked_for(
    browser: Browser, exported: Path, image: Path, expected: Prediction, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    flags = ["--load-weights", exported / "model.xml", "--api-key-file", key]
    with running_server(tmp_path, *flags) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.locator("#file").set_input_files(image)
        expect(page.get_by_role("status")).to_contain_text("X-API-Key")
        page.get_by_label("This service wants a key").fill("secret")
        page.keyboard.press("Enter")
        page.locator("#file").set_input_files(image)
        check_answer(page, image.name, expected)
        page.close()
