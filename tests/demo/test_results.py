import base64
import json
import re
from html.parser import HTMLParser

import pytest

from espnet_mlma.decode.transcript import Transcript, Word
from espnet_mlma.demo.results import LEVELS, Column, clock, message, transcripts


def part(words, language="it", duration=2.0):
    text = " ".join(word.text for word in words)
    return Transcript(text, tuple(words), language, -1.0, duration, ())


def column(*parts, model="small", is_finished=True):
    return Column(model, parts, 10.0, 0.5, is_finished)


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of_class(self, name):
        return [attrs for _, attrs in self.found if name in (attrs.get("class") or "").split()]


def test_no_text_becomes_a_tag_or_an_attribute():
    evil = """<img src=x onerror='1'>"&"""
    shown = column(part([Word(evil, 0, 1, 0.9)], language=evil), model=evil)
    page = Tags(transcripts([shown, shown], f"{evil}.wav"))
    assert not [tag for tag, _ in page.found if tag == "img"]
    assert not [attrs for _, attrs in page.found if "onerror" in attrs or "src" in attrs]
    assert page.text.count(evil) >= 4  # the words and the names of the models
    assert Tags(message(evil)).text == evil


@pytest.mark.parametrize(
    ("confidence", "style"),
    [(1.0, "sure"), (0.9, "sure"), (0.899, "likely"), (0.5, "doubtful"), (0.0, "guess")],
)
def test_words_have_times_and_a_level(confidence, style):
    page = Tags(transcripts([column(part([Word("ciao", 1.25, 1.5, confidence)]))], "a.wav"))
    (word,) = [attrs for attrs in page.of_class("word") if "data-start" in attrs]
    assert word["class"] == f"word {style}"
    assert (float(word["data-start"]), float(word["data-end"])) == (1.25, 1.5)
    assert word["title"] == f"1.25 to 1.50 s, confidence {confidence:.0%}"
    assert [attrs["class"] for attrs in page.of_class("word")][1:] == [
        f"word {level.style}" for level in LEVELS
    ]


def test_parts_become_one_transcript():
    first = part([Word("buon", 0.5, 0.75, 0.9), Word("giorno", 1, 1.5, 0.9)])
    second = part([Word("hi", 6, 6.5, 0.8)], language="en")
    whole = column(first, second).whole
    assert whole.text == "buon giorno hi" and whole.words == first.words + second.words
    assert (whole.language, whole.score, whole.duration) == ("it", -2.0, 10.0)


def test_downloads_are_in_the_page_once_recognition_is_complete():
    words = part([Word("più", 0.5, 0.75, 0.9)])
    assert links(transcripts([column(words, is_finished=False)], "a.b.wav")) == ([], [])
    (srt, json_), names = links(transcripts([column(words)], "a.b.wav"))
    assert names == ["a.b.srt", "a.b.json"]
    assert srt == "1\n00:00:00,500 --> 00:00:01,500\npiù\n\n"
    content = json.loads(json_)
    assert (content["file"], content["model"], content["text"]) == ("a.b.wav", "small", "più")
    _, names = links(transcripts([column(words), column(words, model="large")], "a.wav"))
    assert names == ["a.small.srt", "a.small.json", "a.large.srt", "a.large.json"]


def links(html):
    found = [attrs for tag, attrs in Tags(html).found if tag == "a"]
    contents = [base64.b64decode(re.sub("^data:[^,]*,", "", attrs["href"])) for attrs in found]
    return [content.decode() for content in contents], [attrs["download"] for attrs in found]


def test_progress_is_shown_and_then_the_speed():
    words = part([Word("sì", 3.0, 4.5, 0.9)])
    assert "recognising: 0:04 of 0:10" in transcripts([column(words, is_finished=False)], "a.wav")
    done = transcripts([column(words)], "a.wav")
    assert "Italian" in done and "20 × real time" in done
    assert "No words were recognised" in transcripts([column()], "a.wav")


def test_clock():
    assert [clock(s) for s in (0, 61.9, 3600)] == ["0:00", "1:01", "1:00:00"]
