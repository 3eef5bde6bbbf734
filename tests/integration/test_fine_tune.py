"""Fine-tune a trained model to a seventh language, from added corpus to scores.

Needs MLMA_EXPERIMENT, an experiment folder after stage 12; `.ci/run` sets it.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("MLMA_EXPERIMENT" not in os.environ, reason="MLMA_EXPERIMENT is not set"),
]
LAYOUT = Path(__file__).resolve().parents[2]
EPOCHS = 3
VOICES = ("m1", "m3", "f1", "f2", "f4")
# Polish: subject, verb, object, place.
WORDS = (
    ("nauczyciel", "mała dziewczynka", "mój brat", "stary żołnierz", "nasz sąsiad", "lekarz"),
    ("czyta", "kupuje", "widzi", "przynosi", "otwiera", "znajduje", "sprzedaje"),
    ("książkę", "świeży chleb", "gazetę", "zielone jabłko", "długi list", "małe pudełko"),
    ("w szkole", "na rynku", "koło mostu", "w ogrodzie", "przy rzece", "na dworcu"),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A recipe with a corpus of Polish sentences that eSpeak NG spoke."""
    from espnet_mlma.data.corpora.espeak import Espeak, SynthesisLine

    folder = tmp_path_factory.mktemp("fine") / "recipe"
    main(["recipe", "new", str(folder)])
    source, draw, engine = folder / "source", random.Random(0), Espeak()
    source.mkdir()
    rows = []
    for number in range(420):
        text = " ".join(draw.choice(words) for words in WORDS)
        voice = draw.choice(VOICES)
        rate, pitch = draw.randint(130, 190), draw.randint(30, 70)
        line = SynthesisLine(str(number), voice, text, f"pl+{voice}", rate, pitch, 30.0)
        soundfile.write(source / f"{number}.flac", engine.speak(line) * 0.5, SAMPLE_RATE)
        # Sentences of one speaker are spread over the splits.
        rows.append(f"{number}.flac\t{voice}x{number % 21}\t{text}\n")
    (source / "clips.tsv").write_text("".join(rows), encoding="utf-8")
    options = ["--name", "polish", "--lang", "pl", "--output", str(folder / "db" / "polish")]
    main(["data", "add", str(source / "clips.tsv"), *options, "--yes"])
    return folder


def run(recipe: Path, tag: str, *options: str) -> float:
    """Run the recipe and return the character error rate of its test set, per cent."""
    own = Path(sys.executable).parent
    variables = {"PATH": f"{own}:{os.environ['PATH']}", "VIRTUAL_ENV": str(own.parent)}
    command = [
        recipe / "run.sh",
        "--mixture",
        "polish",
        "--db_root",
        str(recipe / "db"),
        "--stop_stage",
        "13",
    ]
    command += ["--asr_tag", tag, "--ngpu", "0", "--asr_args", f"--max_epoch {EPOCHS}", *options]
    environment = os.environ | variables | {"PYTHONPATH": str(LAYOUT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = (recipe / "exp" / f"asr_{tag}" / "RESULTS.md").read_text()
    row = re.search(r"^\| pl \|.*$", results, re.MULTILINE)
    return float(row[0].split("|")[5])


def test_a_seventh_language_is_learnt_better_than_from_nothing(recipe):
    model = str(Path(os.environ["MLMA_EXPERIMENT"]).resolve())
    fine_tuned = run(recipe, "fine", "--pretrained_model", model)
    config = "conf/train_asr_conmamba_mini.yaml"
    from_nothing = run(recipe, "nothing", "--asr_config", config)
    print(f"CER after {EPOCHS} epochs: fine-tuned {fine_tuned} %, from nothing {from_nothing} %")
    assert fine_tuned < 0.8 * from_nothing
    old = (Path(model) / "config.yaml").read_text()
    (tokens,) = (recipe / "data").glob("polish_token_list/char_pretrained_*/tokens.txt")
    symbols = tokens.read_text().splitlines()
    assert {"ł", "ż", "ś"} <= set(symbols)
    known = re.findall(r"^- (.+)$", old.partition("token_list:")[2], re.MULTILINE)
    assert len(symbols) > len(known) - 1
