"""The page in Chromium, served as `mlma demo` serves it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import espnet_mlma
from espnet_mlma.decode.formats import FORMATS, Source

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="Chromium and its driver are not installed"
)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@dataclass
class Page:
    driver: object

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition):
        return WebDriverWait(self.driver, 20, 0.1).until(lambda _: condition())

    def upload(self, path: Path) -> None:
        self.wait(lambda: self.all("#sound input[type=file]"))[0].send_keys(str(path))

    def message(self) -> str:
        return self.wait(lambda: self.all(".message"))[0].text

    def player(self, script: str):
        return self.driver.execute_script(
            f"const player = document.querySelector('#sound audio'); {script}"
        )


@pytest.fixture(scope="module", autouse=True)
def no_traceback(server):
    """Check that the server logs no traceback during the tests."""
    before = server.log.stat().st_size
    yield
    assert "Traceback" not in server.log.read_text()[before:]


@pytest.fixture
def page(server, browser) -> Page:
    browser.get(server.address)
    return Page(browser)


@pytest.fixture
def recognised(page, sound) -> Page:
    """Return the page with complete transcripts of `sound`."""
    page.upload(sound)
    page.wait(lambda: len(page.all(".downloads a")) == 4)
    return page


def test_two_models_side_by_side_with_times(recognised, models, sound):
    articles = recognised.all("article")
    assert [article.find_element(By.TAG_NAME, "h2").text for article in articles] == [
        "first",
        "second",
    ]
    texts = []
    for article, model in zip(articles, models, strict=True):
        expected = espnet_mlma.load(model, device="cpu").transcribe(sound)
        words = article.find_elements(By.CSS_SELECTOR, ".lines .word")
        assert len(words) > 3
        assert [word.text for word in words] == [word.text for word in expected.words]
        for word, of in zip(words, expected.words, strict=True):
            assert word.get_attribute("title").startswith(f"{of.start:.2f} to {of.end:.2f} s")
        assert "0:03 of audio" in article.text and "× real time" in article.text
        texts.append(expected.text)
    assert texts[0] != texts[1]


def test_a_click_or_enter_on_a_word_plays_from_it(recognised):
    page = recognised
    page.player(
        "window.started = [];"
        "player.addEventListener('play', () => {"
        "  window.started.push(player.currentTime); player.pause(); });"
    )
    words = page.all(".lines .word")
    starts = [float(words[i].get_attribute("data-start")) for i in (3, 2)]
    assert min(starts) > 0.1
    words[3].click()
    page.wait(lambda: page.player("return started.length == 1 && player.paused"))
    words[2].send_keys(Keys.ENTER)
    page.wait(lambda: page.player("return started.length == 2"))
    assert page.player("return started") == pytest.approx(starts, abs=0.1)


def test_the_playing_word_is_marked(recognised):
    page = recognised
    word = page.all(".lines .word")[2]
    start, end = (float(word.get_attribute(f"data-{name}")) for name in ("start", "end"))
    assert "playing" not in word.get_attribute("class")
    page.player(f"player.currentTime = {(start + end) / 2}")
    page.wait(lambda: "playing" in word.get_attribute("class"))


def test_downloads_equal_the_files_of_mlma_transcribe(recognised, browser, models, sound, tmp_path):
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    for link in recognised.all(".downloads a")[:2]:
        link.click()
    srt, json_ = tmp_path / "noise.first.srt", tmp_path / "noise.first.json"
    recognised.wait(lambda: srt.is_file() and json_.is_file())
    expected = espnet_mlma.load(models[0], device="cpu").transcribe(sound)
    source = Source("noise.wav", "first")
    assert srt.read_text() == FORMATS["srt"].render(expected, source)
    assert json.loads(json_.read_text()) == json.loads(FORMATS["json"].render(expected, source))


def test_a_recording_is_recognised(page):
    page.wait(lambda: page.all("#sound button[aria-label='Record audio']"))[0].click()
    page.wait(lambda: page.all("#sound .record-button"))[0].click()
    time.sleep(1)
    page.wait(lambda: page.all("#sound .stop-button"))[0].click()
    page.wait(lambda: len(page.all(".downloads a")) == 4)
    assert "of audio" in page.all(".facts")[0].text


def test_bad_files_get_a_message_and_later_files_work(page, sound, tmp_path):
    text = tmp_path / "letter.wav"
    text.write_text("Dear all,\n" * 100)
    page.upload(text)
    assert page.message().startswith("letter.wav: not readable as audio")
    page.all("#sound button[aria-label=Clear]")[0].click()
    page.wait(lambda: not page.all(".message"))
    long = tmp_path / "long.flac"
    soundfile.write(long, np.zeros(16000 * 7), 16000)
    page.upload(long)
    assert page.message().startswith("long.flac: longer than 0.1 minutes; cut it")
    page.all("#sound button[aria-label=Clear]")[0].click()
    page.wait(lambda: not page.all(".message"))
    large = tmp_path / "large.wav"
    soundfile.write(large, np.zeros(16000 * 60), 16000)
    page.upload(large)
    page.wait(lambda: "exceed the maximum allowed size" in page.all("body")[0].text)
    page.upload(sound)
    page.wait(lambda: len(page.all(".downloads a")) == 4)


def test_a_file_name_is_escaped_in_html_and_templates(page, browser, sound, tmp_path):
    name = "<img src=x onerror='window.run = 1'>${window.run = 2}{{value}}`.wav"
    page.upload(shutil.copy(sound, tmp_path / name))
    links = page.wait(lambda: page.all(".downloads a"))
    assert links[0].get_attribute("download") == name.replace(".wav", ".first.srt")
    assert browser.execute_script("return window.run") is None


def test_no_upload_is_left_and_no_other_server_is_requested(server, browser, recognised):
    assert server.uploads() == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.startswith(server.address) for url in requests)
    local = (server.address, f"blob:{server.address}", "data:")
    assert [url for url in requests if not url.startswith(local)] == []


def test_another_site_cannot_use_the_page(server, browser, sound, page):
    """A page on another port has another origin; it sends requests as a form and as a script."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = """
        const [url, done] = arguments;
        const form = new FormData();
        form.append("files", new Blob(["RIFF"]), "x.wav");
        const asked = [
          fetch(url + "/gradio_api/upload", { method: "POST", body: form, mode: "no-cors" }),
          fetch(url + "/config"),
          new Promise((resolve, reject) => {
            const image = new Image();
            image.onload = resolve;
            image.onerror = reject;
            image.src = url + "/favicon.ico";
          }),
        ];
        Promise.allSettled(asked).then((results) => done(results.map((one) => one.status)));
    """
    site = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=sound.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page.wait(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        browser.get(f"http://127.0.0.1:{port}/")
        answered = browser.execute_async_script(script, server.address)
    finally:
        site.terminate()
        site.wait(20)
    assert answered == ["rejected"] * 3
    assert server.uploads() == []
