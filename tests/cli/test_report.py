"""`mlma report`, from the folders of stages 3, 11 and 12 to the page in a browser."""

import base64
import io
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.tables import read
from espnet_mlma.evaluation.report.data import read_confidences

TAG = "decode_ctc_best_path_asr_model_valid.cer_ctc.ave"
EVIL = "en_2-<script>document.title='run'</script>"
# id, speaker, language, corpus, reference, hypothesis (None: missing), seconds
UTTERANCES = {
    "test_cv_en": [
        ("en_1-a", "en_1", "en", "cv", "good morning to all", "good mourning to", 1.5),
        (EVIL, "en_<b>2", "en", "c&v", "a fox", "a vox is", 0.7),
        ("en_3-c", "en_3", "en", "cv", "nothing came back", None, 0.5),
    ],
    "test_ls_it": [("it_1-a", "it_1", "it", "ls", "va bene", "va bene", 2.5)],
}
LOG = (
    "[host] 2026-01-01 00:00:00,000 (trainer:392) INFO: {0}epoch results: [train] "
    "loss=4{0}.000, time=1 second, [valid] loss=5{0}.000, cer_ctc=0.5{0}, total_count=8\n"
)


def write_table(path: Path, rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {value}\n" for key, value in rows.items()), encoding="utf-8")


@pytest.fixture
def recipe(tmp_path) -> Path:
    """The folder of a recipe after stage 12; its audio is named from there."""
    experiment = tmp_path / "exp" / "asr_x"
    for name, rows in UTTERANCES.items():
        data, decoded = tmp_path / "dump" / "raw" / name, experiment / TAG / name
        ids = [row[0] for row in rows]
        for table, column in (("utt2spk", 1), ("utt2lang", 2), ("utt2category", 3), ("text", 4)):
            write_table(data / table, {row[0]: row[column] for row in rows})
        samples = {row[0]: round(SAMPLE_RATE * row[6]) for row in rows}
        write_table(data / "utt2num_samples", samples)
        write_table(data / "wav.scp", {id_: f"audio/{name}-{n}.flac" for n, id_ in enumerate(ids)})
        (tmp_path / "audio").mkdir(exist_ok=True)
        for n, id_ in enumerate(ids):
            noise = np.random.default_rng(n).normal(0, 0.1, samples[id_])
            soundfile.write(tmp_path / "audio" / f"{name}-{n}.flac", noise, SAMPLE_RATE)
        found = {row[0]: row[5] for row in rows if row[5] is not None}
        write_table(decoded / "text", found)
        write_table(decoded / "token", {id_: " ".join(text) for id_, text in found.items()})
        write_table(decoded / "score", {id_: f"{-len(text):.4f}" for id_, text in found.items()})
    (experiment / "train.log").write_text(LOG.format(1) + LOG.format(2))
    return tmp_path


class Elements(HTMLParser):
    """Counts what is in a page, and keeps its text and addresses."""

    VOID = {"meta", "link", "img", "br", "input"}

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.addresses, self.open, self.data = [], [], [], ""
        self.feed(html)
        assert self.open == []
        self.text = " ".join(self.data.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data += data + " "


@pytest.fixture
def page(mlma, recipe) -> Path:
    code, out, err = mlma("report", recipe / "exp" / "asr_x", "-o", recipe / "new" / "page.html")
    assert (code, err) == (0, "")
    assert out.startswith(f"wrote {recipe / 'new' / 'page.html'}, 0.0 MB: 3 of the worst")
    assert out.count("\n") == 1
    return recipe / "new" / "page.html"


def test_the_page_has_the_figures_and_needs_nothing_else(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    # 11 words: mourning, all; vox, is; three that did not come back
    assert "Word error rate 63.6 %" in elements.text
    assert "micro average 63.6" in elements.text
    assert "mean of 2 38.9" in elements.text
    assert "lowest in validation: 51 after epoch 1" in elements.text
    assert "morning mourning 1 1 " in elements.text
    assert elements.text.index("en_3-c") > elements.text.index("Worst utterances")
    assert {"script", "img", "link"}.isdisjoint(elements.tags)
    addresses = [address for address in elements.addresses if address[0] != "#"]
    assert len(addresses) == 3
    assert all(address.startswith("data:audio/mpeg;base64,") for address in addresses)


def test_names_and_ids_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "en_2-&lt;script&gt;" in text and "c&amp;v" in text and "en_&lt;b&gt;2" in text


def test_the_audio_is_that_of_the_utterance(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    lengths = []
    for address in elements.addresses:
        if address.startswith("data:"):
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(address.split(",")[1])))
            assert rate == SAMPLE_RATE
            lengths.append(len(samples) / rate)
    # The worst first: 2 of 2 words, 3 of 3, 2 of 4
    assert lengths == pytest.approx([0.5, 0.7, 1.5], abs=0.1)


def test_utterances_without_audio_are_counted_by_reason(mlma, recipe):
    (recipe / "audio" / "test_cv_en-0.flac").unlink()
    (recipe / "audio" / "test_cv_en-1.flac").write_text("no sound")
    output = recipe / "page.html"
    code, out, _ = mlma("report", recipe / "exp" / "asr_x", "-o", output)
    assert code == 0
    assert "  2 without audio: its audio cannot be read\n" in out
    text = output.read_text(encoding="utf-8")
    assert text.count("<audio") == 1
    assert "2 without audio: its audio cannot be read" in text


@pytest.mark.parametrize(("megabytes", "clips"), [(0, 0), (0.005, 1), (0.1, 3)])
def test_audio_stays_below_the_limit(mlma, recipe, megabytes, clips):
    options = ("-o", recipe / "page.html", "--audio-mb", megabytes)
    code, out, _ = mlma("report", recipe / "exp" / "asr_x", *options)
    assert code == 0
    assert (recipe / "page.html").read_text(encoding="utf-8").count("<audio") == clips
    silent = f"  {3 - clips} without audio: the page has no more room for audio; see --audio-mb\n"
    assert (silent in out) == (clips < 3)


def test_its_place_is_the_decoding_and_twice_gives_the_same(mlma, recipe, monkeypatch):
    monkeypatch.chdir(recipe / "audio")
    options = ("report", "../exp/asr_x", "--worst", 1)
    assert mlma(*options)[0] == 0
    page = recipe / "exp" / "asr_x" / TAG / "report.html"
    first = page.read_bytes()
    assert first.count(b"<article") == 1
    assert mlma(*options)[0] == 0
    assert page.read_bytes() == first


def test_confidence_is_ours_where_it_is_written_and_else_a_symbols_probability(recipe):
    decoded = recipe / "exp" / "asr_x" / TAG / "test_ls_it"
    id_, text = next(iter(read(decoded / "text", "").items()))
    # The score above is one nat a character, and the tokens are without the spaces.
    symbols = math.exp(-len(text) / len(text.replace(" ", "")))
    assert read_confidences(decoded)[id_] == pytest.approx(symbols)
    write_table(decoded / "confidence", {id_: "0.8125", "other": ""})
    assert read_confidences(decoded) == {id_: 0.8125}


def test_a_length_bonus_gives_at_most_confidence_1(recipe):
    decoded = recipe / "exp" / "asr_x" / TAG / "test_ls_it"
    id_ = next(iter(read(decoded / "score", "")))
    write_table(decoded / "score", {id_: "tensor(1e9)"})
    assert read_confidences(decoded) == {id_: 1}


@pytest.mark.parametrize("table, value", [("confidence", "much"), ("utt2num_samples", "1.5.2")])
def test_a_bad_number_is_named(mlma, recipe, table, value):
    experiment, name = recipe / "exp" / "asr_x", "test_ls_it"
    folder = recipe / "dump" / "raw" if table.startswith("utt2") else experiment / TAG
    id_ = next(iter(read(experiment / TAG / name / "text", "")))
    write_table(folder / name / table, {id_: value})
    code, _, err = mlma("report", experiment, "-o", recipe / "page.html")
    assert code == 1
    assert err.startswith(f"error: {folder / name / table}: {id_}: {value!r} is no number; ")


def test_without_confidences_log_or_errors_the_page_says_so(mlma, recipe):
    experiment = recipe / "exp" / "asr_x"
    (experiment / "train.log").unlink()
    shutil.rmtree(experiment / TAG / "test_cv_en")
    (experiment / TAG / "test_ls_it" / "score").unlink()
    assert mlma("report", experiment, "-o", recipe / "page.html")[0] == 0
    text = Elements((recipe / "page.html").read_text(encoding="utf-8")).text
    assert "Decoding wrote no confidences." in text
    assert "with a finished epoch" in text
    assert "Every word is right." in text


def test_a_decoding_is_chosen_by_name(mlma, recipe):
    experiment = recipe / "exp" / "asr_x"
    shutil.copytree(experiment / TAG, experiment / "decode_beam")
    code, _, err = mlma("report", experiment)
    assert code == 1
    assert err.endswith(f"choose with --decoding: decode_beam {TAG}\n")
    output = recipe / "page.html"
    assert mlma("report", experiment, "--decoding", "decode_beam", "-o", output)[0] == 0
    assert "<code>decode_beam</code>" in output.read_text(encoding="utf-8")


def test_test_sets_are_chosen_and_corpora_explained(mlma, recipe):
    options = ("report", recipe / "exp" / "asr_x", "-o", recipe / "page.html")
    assert mlma(*options)[0] == 0
    text = Elements((recipe / "page.html").read_text(encoding="utf-8")).text
    assert "cv is Common Voice; ls is test sets of LibriSpeech" in text
    assert mlma(*options, "--sets", "test_cv_en")[0] == 0
    text = Elements((recipe / "page.html").read_text(encoding="utf-8")).text
    assert "cv is Common Voice." in text and "test_ls_it" not in text
    assert "only test_cv_en" in text
    code, _, err = mlma("report", recipe / "exp" / "asr_x", "--sets", "test_cv_en")
    assert code == 2 and "--sets: name a file with -o" in err


def test_fleurs_has_no_speakers(mlma, recipe):
    table = recipe / "dump" / "raw" / "test_ls_it" / "utt2category"
    table.write_text(table.read_text().replace(" ls", " fl"))
    assert mlma("report", recipe / "exp" / "asr_x", "-o", recipe / "page.html")[0] == 0
    text = Elements((recipe / "page.html").read_text(encoding="utf-8")).text
    clips = len(table.read_text().splitlines())
    assert f"{clips} utterances of FLEURS are left out" in text


def test_references_may_lie_elsewhere(mlma, recipe):
    (recipe / "dump" / "raw").rename(recipe / "data")
    (recipe / "dump").rmdir()
    options = ("report", recipe / "exp" / "asr_x", "-o", recipe / "page.html")
    code, _, err = mlma(*options)
    assert code == 1
    assert "no dump/raw above it; give the references with --dump" in err
    assert mlma(*options, "--dump", recipe / "data")[0] == 0


BREAKAGES = {
    "no folder": (shutil.rmtree, "asr_x: no such folder; give an experiment"),
    "not decoded": (lambda exp: shutil.rmtree(exp / TAG), "run `./run.sh --stage 12"),
    "no such decoding": (
        lambda exp: (exp / TAG).rename(exp / "other"),
        f"no decoding '{TAG}'; choose from other",
    ),
    "no references": (
        lambda exp: shutil.rmtree(exp.parents[1] / "dump" / "raw" / "test_ls_it"),
        "run stage 3 first",
    ),
    "a set without lengths": (
        lambda exp: (exp.parents[1] / "dump/raw/test_ls_it/utt2num_samples").write_text(""),
        "utt2num_samples: it_1-a is missing; run stage 3 again",
    ),
    "nothing in the sets": (
        lambda exp: [
            path.write_text("")
            for folder in (exp / TAG, exp.parents[1] / "dump" / "raw")
            for path in folder.glob("*/*")
        ],
        "its sets have no utterance",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_missing_input_is_one_line_and_no_page(mlma, recipe, breakage):
    change, message = BREAKAGES[breakage]
    experiment, output = recipe / "exp" / "asr_x", recipe / "page.html"
    change(experiment)
    code, out, err = mlma("report", experiment, "--decoding", TAG, "-o", output)
    assert (code, out) == (1, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert not output.exists()


def test_a_page_that_is_named_as_something_else_is_wrong_usage(mlma, recipe):
    code, _, err = mlma("report", recipe / "exp" / "asr_x", "-o", recipe / "page.md")
    assert code == 2 and "page.md: the page is HTML; name it .html" in err
    assert not (recipe / "page.md").exists()


@pytest.mark.parametrize("size", ["-1", "inf", "nan", "much"])
def test_a_size_that_is_none_is_wrong_usage(mlma, size):
    code, _, err = mlma("report", "exp", f"--audio-mb={size}")
    assert code == 2
    assert size in err and err.count("\n") == 1


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield running
    running.quit()


PLAY = """
const done = arguments[0], audio = document.querySelector("audio");
audio.onloadedmetadata = () => done(audio.duration);
audio.onerror = () => done(audio.error.message);
audio.preload = "metadata";
audio.load();
"""


def test_a_browser_shows_it_narrow_and_dark_and_plays(browser, page):
    browser.get(page.as_uri())
    colours = []
    for theme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours.append(browser.execute_script("return getComputedStyle(document.body).color"))
    assert len(set(colours)) == 2
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 400
    assert browser.execute_async_script(PLAY) == pytest.approx(0.5, abs=0.15)
    assert browser.title == "asr_x"
    assert browser.get_log("browser") == []
