"""The report in a browser, from disk: limits by mouse, keys and numbers, what follows them, and filters that agree."""

import re

import pytest
from manifests import footage, many
from opensora_comfy.training.data.footage.filters import keep
from opensora_comfy.training.data.footage.report.page import write

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CHARTS = {"Length": 0, "Motion": 1, "Aesthetic score": 2, "Sharpness": 3, "Text in the picture": 4}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name: (rows, the report on them)}: a few shots with films, many without."""
    folder = tmp_path_factory.mktemp("footage")
    sets = {"few": footage(folder), "many": many(600)}
    return {name: (rows, write(folder / f"{name}.html", rows, folder, name, most=20)) for name, rows in sets.items()}


@pytest.fixture
def opened(browser, files):
    """Opens a report by its name in a tab of its own; at the end nothing must have gone wrong, or to the network."""
    contexts, wrong = [], []

    def open_(name, size=WIDE, path=None, **options):
        context = browser.browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda one: None if one.url.startswith(("data:", "file:")) else wrong.append(one.url))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        page.goto((path or files[name][1]).as_uri())
        page.wait_for_selector("#counts b", timeout=10_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def drawn(page):
    """After what was done has been drawn, what is put off included."""
    page.evaluate("""() => new Promise((done) =>
        setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 250))""")


def shown(page):
    """(shots that would be kept, the filter) as the page says."""
    drawn(page)
    text = page.locator("#filter").inner_text()
    return int(page.locator("#counts b").first.inner_text().replace(",", "")), "" if "no filter" in text else text


def agrees(page, rows):
    """Whether the filter that the page says keeps as many shots as it counts; gives the filter."""
    count, text = shown(page)
    assert count == sum(row["kept"] for row in keep(rows, text) if row["shot"] >= 0), text
    return text


def drag(page, chart, side, share):
    """Drag a handle of a chart to a share of its width."""
    plot = page.locator(".plot").nth(CHARTS[chart])
    plot.scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, 120)")
    box, handle = plot.bounding_box(), plot.locator(f".handle.{side}").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] - 12)
    page.mouse.down()
    page.mouse.move(box["x"] + share * box["width"], box["y"] + 50, steps=8)
    page.mouse.up()


def test_a_dragged_limit_changes_what_would_be_kept(opened, files):
    rows, page = files["many"][0], opened("many")
    before = sum(row["kept"] for row in rows)
    assert shown(page) == (before, "") and page.locator("#copy").is_disabled()
    drag(page, "Motion", "low", 0.4)
    first = agrees(page, rows)
    assert re.fullmatch(r"num_frames == 1 or flow_dis >= [\d.]+", first)
    drag(page, "Sharpness", "high", 0.7)
    drag(page, "Sharpness", "low", 0.1)
    second = agrees(page, rows)
    assert re.fullmatch(r"\(num_frames == 1 or flow_dis >= [\d.]+\) and [\d.]+ <= sharpness <= [\d.]+", second)
    assert 0 < shown(page)[0] < before
    drag(page, "Motion", "low", -0.1)  # at its end it is none
    assert "flow_dis" not in agrees(page, rows)
    page.locator("#reset").click()
    assert shown(page) == (before, "")


def test_pictures_motions_copies_and_words(opened, files):
    rows, page = files["many"][0], opened("many")
    drag(page, "Length", "high", 0.5)
    assert agrees(page, rows).startswith("num_frames == 1 or num_frames / fps <= ")
    page.get_by_role("button", name="pass limits").click()
    assert agrees(page, rows).startswith("num_frames / fps <= ")
    for name in ("static", "keep copies"):
        page.get_by_role("button", name=name).click()
        agrees(page, rows)
    page.get_by_role("searchbox").fill('script> "quoted"')
    text = agrees(page, rows)
    assert text.endswith('and cmotion != "static" and duplicate_of == "" and "script> \\"quoted\\"" in text')


def test_keys_and_numbers(opened, files):
    rows, page = files["many"][0], opened("many")
    handle = page.get_by_role("slider", name="Aesthetic score: least")
    handle.focus()
    for key in ("ArrowRight", "PageUp", "ArrowLeft"):
        page.keyboard.press(key)
    text = agrees(page, rows)
    assert text == f"aes >= {handle.get_attribute('aria-valuetext')}"
    page.get_by_role("textbox", name="Aesthetic score: least").fill("5.25")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Text in the picture: most").fill("0")
    page.keyboard.press("Tab")
    assert agrees(page, rows) == "aes >= 5.25 and ocr <= 0"
    handle.focus()
    page.keyboard.press("Delete")
    assert agrees(page, rows) == "ocr <= 0"
    page.get_by_role("textbox", name="Text in the picture: most").fill("")
    page.get_by_role("textbox", name="Text in the picture: least").fill("1")
    page.keyboard.press("Enter")
    assert agrees(page, rows) == "ocr >= 1"
    page.get_by_role("textbox", name="Text in the picture: least").fill("what")
    page.keyboard.press("Tab")
    assert shown(page)[1] == ""


def names(page):
    for _ in range(50):  # what has not been drawn yet has no text
        texts = page.locator("#sheet .name").all_inner_texts()
        if all(texts):
            break
        page.wait_for_timeout(100)
    return [text.replace("\n", " ") for text in texts]


def test_cards_are_sorted_greyed_and_say_why(opened, files):
    page = opened("few")
    assert names(page) == ["long.mp4 · 0", "long.mp4 · 1", "long.mp4 · 2", "short.mp4"]
    page.select_option("#sort", label="Motion")
    assert names(page) == ["long.mp4 · 0", "long.mp4 · 2", "long.mp4 · 1", "short.mp4"]
    page.locator("#order").click()
    page.get_by_role("textbox", name="Motion: least").fill("5")
    page.keyboard.press("Enter")
    drawn(page)
    assert names(page) == ["short.mp4", "long.mp4 · 1", "long.mp4 · 2", "long.mp4 · 0"]
    assert page.locator("#sheet .card.out").count() == 3
    reasons = page.locator("#sheet .reason").all_text_contents()
    assert reasons == [
        "", "flow_dis is 4.5; the filter asks for >= 5", "it lasts 0.2 s; the least is 2 s",
        "flow_dis is 0.3; the filter asks for >= 5",
    ]  # fmt: skip
    page.select_option("#show", label="what is kept")
    assert names(page) == ["short.mp4"]


def test_a_film_plays_under_the_pointer(opened):
    page = opened("few")
    film = page.locator("#sheet .film").first
    place = "element => getComputedStyle(element).animationName"
    assert film.evaluate(place) == "none" and "data:image/webp" in film.evaluate(
        "element => element.style.backgroundImage"
    )
    page.locator("#sheet .card").first.hover()
    assert film.evaluate(place) == "film"


def test_a_file_opens_on_its_time_line(opened):
    page = opened("few")
    page.locator("#files .file").first.click()
    parts = page.locator("dialog .part")
    assert parts.count() == 3 and page.locator("dialog .part.out").count() == 1
    boxes = [part.bounding_box() for part in parts.all()]
    assert [round(40 * box["width"] / sum(box["width"] for box in boxes)) for box in boxes] == [10, 25, 5]
    parts.nth(2).click()
    assert "it lasts 0.2 s" in page.locator("dialog .facts").inner_text()
    page.keyboard.press("ArrowLeft")
    assert "frames 10 to 34, 1.0 s" in page.locator("dialog .facts").inner_text()
    page.get_by_role("button", name="next file").click()
    assert page.locator("dialog h2").inner_text() == "short.mp4"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_what_is_left_out_is_there_with_its_reason(opened):
    page = opened("few")
    page.get_by_role("textbox", name="Motion: least").fill("1")
    page.keyboard.press("Enter")
    drawn(page)
    texts = [" ".join(text.split()) for text in page.locator("#out summary").all_inner_texts()]
    assert texts[0] == "1 the filter asks for flow_dis >= 1 0.4 s by the filter above"
    assert set(texts[1:]) == {
        "1 it lasts 0.2 s; the least is 2 s 0.2 s", "1 it breaks off after 12 of 30 frames; export it again"
    }  # fmt: skip
    page.locator("#out summary").first.click()
    assert "flow_dis is 0.3; the filter asks for >= 1" in page.locator("#out .out-row").first.inner_text()


def test_the_filter_is_copied(opened):
    page = opened("few", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("textbox", name="Sharpness: least").fill("0.4")
    page.keyboard.press("Enter")
    drawn(page)
    page.locator("#copy").click()
    page.locator("#copy", has_text="Copied").wait_for()  # the page lets nobody evaluate text
    assert page.evaluate("navigator.clipboard.readText()") == "sharpness >= 0.4"


def test_on_a_phone(opened, files):
    page = opened("many", PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    plot = page.locator(".plot").nth(CHARTS["Aesthetic score"])
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 40)
    assert agrees(page, files["many"][0]).startswith("aes >= ")
    page.locator("#sheet .card").first.tap()
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_ten_thousand_rows(opened, tmp_path):
    rows = many(10_000, files=3000)
    page = opened("", path=write(tmp_path / "large.html", rows, tmp_path, most=0))
    drag(page, "Motion", "low", 0.5)
    agrees(page, rows)
    assert page.evaluate("document.querySelectorAll('*').length") < 6000
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert page.locator("#out details").count() == 2
