import asyncio
import json
import socket
import subprocess
import sys
import time
import wave
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.score.logs import read_log

pytest.importorskip("simulstream")
websockets = pytest.importorskip("websockets")

# A stream whose text is the maximum of each second, and at the end the number of seconds.
LOUDNESS = """
from espnet_mlma.sst.stream.simulstream import StreamProcessor
import torch

class Loudness:
    def __init__(self):
        self.reset()

    def push(self, samples):
        self.samples = torch.cat([self.samples, samples])
        text = []
        while len(self.samples) >= 16000:
            text.append(f"{self.samples[:16000].abs().max():.2f}")
            self.samples = self.samples[16000:]
            self.count += 1
        return " ".join(text)

    def finish(self):
        return f"of {self.count}"

    def reset(self):
        self.samples, self.count = torch.zeros(0), 0

class Processor(StreamProcessor):
    loaded = 0

    @classmethod
    def load_model(cls, config):
        cls.loaded += 1

    def __init__(self, config):
        super().__init__(config, Loudness())
"""
CONFIG = {"source": "en", "target": "de", "multiplier": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write the module `loudness` and a configuration that names it."""
    (tmp_path / "loudness.py").write_text(LOUDNESS)
    config = CONFIG | {
        "type": "loudness.Processor",
        "detokenizer_type": "simuleval",
        "latency_unit": "word",
    }
    (tmp_path / "processor.yaml").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def audio(level: float, seconds: float, rate: int = 16000) -> np.ndarray:
    return np.full(round(seconds * rate), round(level * 2**15), dtype=np.int16)


def write_wav(path, samples: np.ndarray, rate: int = 16000):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


@pytest.mark.slow
def test_log_of_simulstreams_inference_is_read(folder):
    write_wav(folder / "one.wav", audio(0.25, 4.5))
    write_wav(folder / "two.wav", audio(0.5, 2.0, 8000), 8000)
    (folder / "wavs.txt").write_text("one.wav\ntwo.wav\n")
    files = {
        "--speech-processor-config": "processor.yaml",
        "--wav-list-file": "wavs.txt",
        "--metrics-log-file": "metrics.jsonl",
    }
    arguments = [part for key, name in files.items() for part in (key, str(folder / name))]
    command = [sys.executable, "-m", "simulstream.inference", *arguments]
    subprocess.run([*command, "--src-lang", "en", "--tgt-lang", "de"], check=True)
    one, two = read_log(folder / "metrics.jsonl", "word")
    assert [talk.name for talk in (one, two)] == ["one", "two"]
    assert one.source_seconds == 4.5
    assert [(e.text, e.audio_seconds) for e in one.emissions] == [
        ("0.25", 1.92),
        ("0.25 0.25", 3.84),
        ("0.25 of 4", 4.5),
    ]
    assert " ".join(e.text for e in two.emissions).endswith("of 2")


@pytest.mark.slow
def test_several_listeners_are_served_concurrently(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = {
        "hostname": "127.0.0.1",
        "port": port,
        "pool_size": 2,
        "acquire_timeout": 300,
        "metrics": {"enabled": True, "filename": str(folder / "metrics.jsonl")},
    }
    (folder / "server.yaml").write_text(json.dumps(server))
    files = {"--server-config": "server.yaml", "--speech-processor-config": "processor.yaml"}
    arguments = [part for key, name in files.items() for part in (key, str(folder / name))]
    command = [sys.executable, "-m", "simulstream.server.websocket_server", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(process, port)
        levels = (0.25, 0.5, 0.75)  # the third waits until another ends
        texts = asyncio.run(listen_all(f"ws://127.0.0.1:{port}", levels))
    finally:
        process.terminate()
        process.wait()
    assert texts == [f"{level:.2f} {level:.2f} {level:.2f} of 3 " for level in levels]
    talks = {talk.name: talk for talk in read_log(folder / "metrics.jsonl", "word")}
    assert talks.keys() == {f"{level}" for level in levels}
    assert all(talk.source_seconds == pytest.approx(3.1) for talk in talks.values())


def wait_for(process: subprocess.Popen, port: int):
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError(f"the server ended with {process.returncode}")


async def listen_all(uri: str, levels: tuple[float, ...]) -> list[str]:
    return await asyncio.gather(*(listen(uri, level) for level in levels))


async def listen(uri: str, level: float) -> str:
    """Stream 3.1 s in pieces of 100 ms; return the displayed text."""
    metadata = {"sample_rate": 16000, "metrics_metadata": {"wav_name": f"{level}.wav"}}
    text = ""
    async with websockets.connect(uri, open_timeout=None, ping_timeout=None) as connection:
        await connection.send(json.dumps(metadata))
        for _ in range(31):
            await connection.send(audio(level, 0.1).tobytes())
            await asyncio.sleep(0.001)
        await connection.send(json.dumps({"end_of_stream": True}))
        async for message in connection:
            reply = json.loads(message)
            if "end_of_processing" in reply:
                break
            text += reply["new"]
    return text


def test_clear_discards_the_talk(folder):
    from loudness import Processor

    processor = Processor(SimpleNamespace(**CONFIG))
    samples = torch.full((24000,), 0.5).numpy()
    assert processor.process_chunk(samples).new_tokens == ["0.50"]
    processor.clear()
    assert processor.process_chunk(samples).new_string == "0.50 "
    assert processor.end_of_stream().new_tokens == ["of", "1"]


def test_languages_and_units(folder):
    from loudness import Processor

    processor = Processor(SimpleNamespace(**CONFIG))
    assert processor.speech_chunk_size == 1.92
    processor.set_source_language("en")
    processor.set_target_language("de")
    with pytest.raises(MlmaError, match="target language is de, not it"):
        processor.set_target_language("it")
    chinese = Processor(SimpleNamespace(**CONFIG | {"target": "zh"}))
    assert chinese.tokens_to_string(list("我们 a")) == "我们 a"
    assert chinese.end_of_stream().new_tokens == list("of 0")
