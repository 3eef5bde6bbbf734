"""Fixtures: a small translator's configuration, training set and first stage."""

import numpy as np
import pytest
import soundfile

from espnet_mlma.sst.config import (
    Config,
    EncoderConfig,
    LlmConfig,
    LoraConfig,
    StageConfig,
    TrainingConfig,
)
from espnet_mlma.sst.data.records import Part, Segment, line_of
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE

TONES = {"Guten": 400, "Morgen": 700, "Damen": 1100, "Tag": 1600}


@pytest.fixture(scope="session")
def config(llm_folder):
    """Configuration of a translator with dropout in all its parts."""
    sizes = {"d_model": 32, "num_layers": 1, "num_heads": 2, "linear_units": 48, "dropout": 0.1}
    return Config(
        EncoderConfig("wav2vec2", options={"conv_channels": [8] * 7} | sizes),
        LlmConfig(str(llm_folder), dtype="float32"),
        lora=LoraConfig(8),
        training=TrainingConfig(
            batch_tokens=500,
            batch_segments=1,
            batches_per_update=3,
            largest_multiplier=3,
            warmup_updates=3,
            precision="float32",
            save_updates=2,
        ),
        stage0=StageConfig(3e-4),
        stage1=StageConfig(3e-4),
        stage2=StageConfig(3e-4),
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Segments with a tone per word, for 4 updates; the last update has one batch."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(10):  # 3 updates of 3 batches and one of 1
        words = rng.choice(list(TONES), 3)
        time = np.arange(CHUNK_SAMPLES) / SAMPLE_RATE
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * TONES[word] * time) for word in words])
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, SAMPLE_RATE)
        part = Part(str(path), 0.0, len(samples) / SAMPLE_RATE, 0.0)
        heard = " ".join(words)
        lines.append(line_of(Segment(str(number), (part,), 3, tuple(words), "en", "de", heard)))
    file = folder / "train.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def first_stage(config, data, tmp_path_factory):
    """Output folder of stage 1."""
    from espnet_mlma.sst.train.stages import train

    folder = tmp_path_factory.mktemp("one")
    train(config, 1, [data], folder)
    return folder
