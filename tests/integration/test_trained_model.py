"""A trained experiment of the recipe has the same texts by every way to load it.

Needs MLMA_EXPERIMENT, an experiment folder after stage 14; `.ci/run` sets it.
"""

import os
from pathlib import Path

import pytest
import soundfile
from espnet2.bin.asr_inference import Speech2Text

import espnet_mlma
from espnet_mlma.data.tables import read
from espnet_mlma.decode.folder import read_samples
from espnet_mlma.evaluation.score.align import count_errors

SETS = [f"test_mini_{lang}" for lang in ("de", "en", "es", "fr", "it", "nl")]
CTC_ONLY = {"ctc_weight": 1.0, "beam_size": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def experiment():
    if "MLMA_EXPERIMENT" not in os.environ:
        pytest.skip("MLMA_EXPERIMENT names no experiment folder")
    return Path(os.environ["MLMA_EXPERIMENT"]).resolve()


@pytest.fixture(scope="module")
def files(experiment, tmp_path_factory):
    """Write the first three test utterances of each language as files; return them by id."""
    folder = tmp_path_factory.mktemp("audio")
    recipe = experiment.parents[1]  # its tables hold paths relative to it
    paths = {}
    for name in SETS:
        scp = read(recipe / "dump" / "raw" / name / "wav.scp", "stage 3")
        for key in sorted(scp)[:3]:
            paths[key] = folder / f"{key}.wav"
            soundfile.write(
                paths[key], read_samples(str(recipe / scp[key])), 16000, subtype="FLOAT"
            )
    return paths


@pytest.fixture(scope="module")
def packed(experiment):
    return next(experiment.glob("*.zip"))


def decoded_by_the_recipe(experiment):
    """Return the texts that stage 12 wrote."""
    texts = {}
    for file in experiment.glob("decode_*/test_mini_*/text"):
        texts |= read(file, "stage 12")
    return texts


def test_folder_zip_and_recipe_agree(experiment, packed, files):
    expected = decoded_by_the_recipe(experiment)
    folder, archive = (espnet_mlma.load(path, device="cpu") for path in (experiment, packed))
    for key, file in files.items():
        assert folder.transcribe(file).text == archive.transcribe(file).text == expected[key]


def test_espnets_own_classes_agree(experiment, packed, files, monkeypatch):
    """Texts are close: ESPnet sums over alignments, and the best path does not.

    A model trained for minutes is uncertain, so some texts differ. The number of equal ones is
    printed.
    """
    monkeypatch.chdir(experiment.parents[1])  # its paths are relative to the recipe
    ours = espnet_mlma.load(experiment, device="cpu")
    built = Speech2Text(
        experiment / "config.yaml", experiment / "valid.cer_ctc.ave.pth", **CTC_ONLY
    )
    unpacked = Speech2Text.from_pretrained(str(packed), **CTC_ONLY)
    same, edits, length = 0, 0, 0
    for file in files.values():
        samples, _ = soundfile.read(file, dtype="float32")
        searched, from_zip = (" ".join(m(samples)[0][0].split()) for m in (built, unpacked))
        assert searched == from_zip
        best_path = ours.transcribe(file).text
        same += searched == best_path
        edits += count_errors(searched, best_path).total
        length += len(searched)
    print(f"ESPnet's search and the best path agree on {same} of {len(files)} files")
    assert edits <= 0.2 * length
