"""The README's first screen, and that what it points at is there."""

import re

import pytest
from conftest import ROOT
from PIL import Image

PAGES = {path.name: path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
README = PAGES["README.md"].read_text(encoding="utf-8")


def test_the_first_screen_is_a_sentence_a_moving_picture_install_and_run():
    assert len(README.splitlines()) <= 120
    first, second, third, *_ = re.split(r"^## ", README, flags=re.MULTILINE)
    (picture,) = re.findall(r"!\[.+\]\((\S+)\)", README)
    assert picture in first and len(first.splitlines()) < 10
    assert second.startswith("Install\n") and third.startswith("Run\n")
    moving = Image.open(ROOT / picture)
    assert moving.n_frames > 20 and (ROOT / picture).stat().st_size < 1_000_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page].read_text(encoding="utf-8"))
    assert not [link for link in links if not (PAGES[page].parent / link).is_file()]


def test_every_page_and_every_template_is_mentioned():
    assert not [name for name in PAGES if name != "README.md" and f"(docs/{name})" not in README]
    templates = {path.name.removesuffix(".json").removesuffix(".app") for path in (ROOT / "workflows").glob("*.json")}
    assert not {name for name in templates if f"`{name}`" not in README}
