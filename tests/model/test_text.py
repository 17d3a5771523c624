"""Caption cleaning and score suffixes against what the original code gives."""

import json
import time
from pathlib import Path

import pytest
from opensora_comfy.model.text import CAMERA_MOTIONS, add_scores, clean_caption
from opensora_comfy.model.text_repair import repair_unicode, strip_markup

CAPTIONS = json.loads((Path(__file__).resolve().parents[1] / "data" / "captions.json").read_text("utf-8"))

# Made by running the original cleaning (ftfy 6.3.1, BeautifulSoup 4.15): what captions.json does not reach.
MORE_CAPTIONS = (
    ("https://a.com/x?y=1 waves", "?y=1 waves"),
    ("at&amp;t &copy; &foo; &#8217;s", "at t foo 's"),
    ("<script>var x</script>after", "after"),
    ("<!-- note -->a <3 b", "a <3 b"),
    ("x < y > z", "x < y > z"),
    ("100% sure+more%20words", "100% sure more words"),
    ("ﬁne ﬂow ｆｕｌｌ", "fine flow full"),
    ("waitâ€¦ ok", "wait… ok"),
    ("ã‚¢ã‚¤", "アイ"),
    ("ð\x9f\x98\x80 smile", "😀 smile"),
    ("itâ€™s", "it†s"),
    ("cafÃ© noir", "cafã noir"),
    ("\x1b[31mred\x07", "31mred"),
    ("free shipping worldwide, download free", "worldwide"),
    ("page 12 of 20", "of 20"),
    ("'quoted'", "quoted"),
    ("server 192.168.0.1 rack", "server rack"),
    ("dash — en – hyphen", "dash - en - hyphen"),
    ("line\\nbreak", "line break"),
    ("click for more", ""),
)


@pytest.mark.parametrize("case", CAPTIONS, ids=lambda case: case["in"][:30])
def test_captions_clean_as_in_the_original(case):
    assert clean_caption(case["in"]) == case["out"]


@pytest.mark.parametrize(("text", "cleaned"), MORE_CAPTIONS)
def test_more_captions_clean_as_in_the_original(text, cleaned):
    assert clean_caption(text) == cleaned


def test_cleaning_runs_twice():
    assert clean_caption("#&#35;123 cat") == "cat"
    assert clean_caption("\"'\"'nested'\"'\" ") == "nested"


def test_cleaning_ten_thousand_words_takes_no_time():
    start = time.perf_counter()
    assert clean_caption("A cat, walking. " * 5000).count("cat") == 5000
    assert time.perf_counter() - start < 20


def test_markup_goes_and_what_only_looks_like_it_stays():
    assert strip_markup("<p>a<br>b</p></b> &lt; c &unknown; <![CDATA[d]]><template>e</template>") == "ab < c &unknown d"
    assert strip_markup("AT&T &#128; &#x2019; &#0; 1 < 2 <") == "AT&T € ’ \ufffd 1 < 2 <"


def test_unicode_is_repaired_once_and_for_all():
    damaged = "ŉ “x” \u2028\ufeff e\u0301 \x80 \ud83d\ude00 \ud800"
    repaired = 'ʼn "x" \n é € 😀 \ufffd'.replace("ʼ", "'")
    assert repair_unicode(damaged) == repaired
    assert repair_unicode(repaired) == repaired


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({}, "a cat."),
        ({"aesthetic": 6.5}, "a cat. aesthetic score: 6.5."),
        ({"aesthetic": 6.5, "motion": 4.0}, "a cat. aesthetic score: 6.5. motion score: 4.0."),
        (
            {"aesthetic": 7, "motion": 0.3, "camera": "pan left"},
            "a cat. aesthetic score: 7.0. motion score: 0.3. camera motion: pan left.",
        ),
        ({"camera": "static", "motion": 10}, "a cat. motion score: 10.0. camera motion: static."),
    ],
)
def test_scores_are_appended(scores, text):
    assert add_scores("a cat.", **scores) == text


def test_scores_that_the_prompt_already_has_are_left_out():
    said = "a cat. aesthetic score: 5.0. camera motion: tilt up."
    assert add_scores(said, aesthetic=6.5, motion=3, camera="pan left") == f"{said} motion score: 3.0."


@pytest.mark.parametrize(
    ("aesthetic", "word"),
    [(3.9, "terrible"), (4, "very poor"), (4.5, "poor"), (5, "fair"), (6, "very good"), (6.5, "excellent")],
)
def test_aesthetic_words_of_1_3(aesthetic, word):
    assert add_scores("a cat.", aesthetic=aesthetic, version="1.3") == f"a cat. The aesthetic score is {word}."


@pytest.mark.parametrize(
    ("motion", "word"),
    [(0.4, "very low"), (0.5, "low"), (2, "fair"), (5, "high"), (10, "very high"), (20, "extremely high")],
)
def test_motion_words_of_1_3(motion, word):
    text = add_scores("a cat.", motion=motion, camera="zoom in", version="1.3")
    assert text == f"a cat. The motion strength is {word}. camera motion: zoom in."


def test_unknown_versions_and_cameras_are_refused():
    with pytest.raises(ValueError, match=r'version is "1\.1".*"1\.2" and "1\.3"'):
        add_scores("a cat.", version="1.1")
    with pytest.raises(ValueError, match=r'camera is "roll".*pan left'):
        add_scores("a cat.", camera="roll")
    assert len(CAMERA_MOTIONS) == 7
