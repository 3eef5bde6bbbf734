import subprocess
import sys
from pathlib import Path

import pytest

from espnet_mlma.data.mixtures import Mixture, load, reader_of
from espnet_mlma.errors import MlmaError

ROOT = Path(__file__).resolve().parents[2]
MIXTURES = ROOT / "conf/mixtures.yaml"
PAPERS = ("ls960", "bi710", "bi1210", "bi3334", "mlma11840")

# Hours of the official train splits: Table 2 of the MLMA paper; LibriSpeech from its own paper.
HOURS = {
    "librispeech": {
        "train-clean-100": {"en": 100.6},
        "train-clean-360": {"en": 363.6},
        "train-other-500": {"en": 496.7},
    },
    "commonvoice": {"train": {"en": 1774, "it": 249, "fr": 829, "es": 499, "de": 947, "nl": 46}},
    "voxpopuli": {"train": {"en": 522, "it": 78, "fr": 206, "es": 152, "de": 264, "nl": 46}},
    "mls": {"train": {"it": 247, "fr": 1077, "es": 918, "de": 1967, "nl": 1554}},
}
TRAIN_UTTERANCES = 390 + 195 + 2312 + 3064  # of LibriSpeech, CV, VoxPopuli and MLS in the copy


@pytest.fixture(params=(*PAPERS, "real", "synthetic", "mini", "mini_en"))
def mixture(request: pytest.FixtureRequest) -> Mixture:
    return load(MIXTURES, request.param)


@pytest.mark.parametrize(
    ("name", "hours"), list(zip(PAPERS, (961, 710, 1210, 3334, 11840), strict=True))
)
def test_hours_match_the_name_of_the_mixture(name: str, hours: float) -> None:
    train = load(MIXTURES, name).train
    total = sum(HOURS[source.corpus][source.split][source.lang] for source in train)
    assert total == pytest.approx(hours, abs=4)


def test_train_uses_training_splits_and_not_fleurs(mixture: Mixture) -> None:
    assert all(source.split.startswith("train") for source in mixture.train)
    assert all(source.split.startswith("dev") for source in mixture.valid)
    assert all(source.split.startswith("test") for source in mixture.test)
    assert "fleurs" not in {source.corpus for source in mixture.train + mixture.valid}


def test_every_trained_corpus_and_language_has_valid_and_test_data(mixture: Mixture) -> None:
    trained = {(source.corpus, source.lang) for source in mixture.train}
    for held in (mixture.valid, mixture.test):
        assert trained <= {(source.corpus, source.lang) for source in held}


def test_test_sets_are_one_per_corpus_and_language() -> None:
    assert list(load(MIXTURES, "ls960").test_sets) == ["test_ls_en", "test_lsother_en"]
    six = load(MIXTURES, "mlma11840").test_sets
    assert len(six) == 1 + 6 + 6 + 5 + 6
    assert [source.split for source in six["test_fl_nl"]] == ["test"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("common_voice en train", "'common_voice en train' is not <corpus>"),
        ("commonvoice en", "is not <corpus>"),
        ("commonvoice", "is not <corpus>"),
        ("commonvoice en,pl train", "unknown language 'pl'"),
    ],
)
def test_an_invalid_line_is_an_error(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"x: {{train: ['{line}'], valid: ['mls nl dev'], test: ['mls nl test']}}")
    with pytest.raises(MlmaError, match=f"m.yaml: x: train: .*{why}"):
        load(path, "x")


@pytest.mark.parametrize(
    ("mixture", "why"),
    [
        ("", "mixture 'x' is not a mapping"),
        ("[mls nl train]", "mixture 'x' is not a mapping"),
        ("{train: 3}", "x: train is not a list"),
        ("{train: [mls: nl train]}", r"x: train: '\{.*\}' is not <corpus>"),
    ],
)
def test_an_invalid_mixture_is_an_error(tmp_path: Path, mixture: str, why: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"x: {mixture}")
    with pytest.raises(MlmaError, match=rf"m\.yaml: {why}"):
        load(path, "x")


def test_an_unknown_mixture_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(MlmaError, match="no mixture 'all'; choose one of ls960 .* mini"):
        load(MIXTURES, "all")
    with pytest.raises(MlmaError, match="none.yaml: No such file or directory; give"):
        load(tmp_path / "none.yaml", "all")


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "espnet_mlma.cli", "recipe", "prepare", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def ids(path: Path) -> set[str]:
    return {line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()}


def test_the_real_mixture_from_the_command_line(shared_corpora: Path, tmp_path: Path) -> None:
    result = run("--mixture", "real", "--db_root", shared_corpora, "--output", tmp_path, "--nj", 2)
    assert result.returncode == 0, result.stderr
    names = run("--mixture", "real", "--list", "test").stdout.split()
    folders = {path.name for path in tmp_path.iterdir()}
    assert folders == {"train_real", "dev_real", *names} and len(names) == 24
    train = ids(tmp_path / "train_real/text")
    notes = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert {"dev_real:", "test_mls_nl:", "test_vp_it:"} < set(notes)
    assert not {"test_ls_en:", "test_cv_en:"} & set(notes)
    # This sample of MLS has the same ids in train, dev and test for different clips.
    assert "dropped: id_in_test 330, out_of_alphabet 1; listed" in result.stdout
    assert len(train) == TRAIN_UTTERANCES - 331
    held_speakers = set()
    for name in ("dev_real", *names):
        folder = tmp_path / name
        assert train.isdisjoint(ids(folder / "text"))
        held_speakers |= {s for s in ids(folder / "spk2utt") if s.startswith("cv_")}
        assert ids(folder / "text") == ids(folder / "utt2spk") == ids(folder / "utt2category")
    assert held_speakers and held_speakers.isdisjoint(ids(tmp_path / "train_real/spk2utt"))
    for corpus in load(MIXTURES, "real").corpora:
        assert f"_{reader_of(corpus).TAG}_" in " ".join(names)


def test_a_wrong_root_is_a_one_line_error_and_writes_nothing(tmp_path: Path) -> None:
    result = run("--mixture", "real", "--db_root", tmp_path / "no", "--output", tmp_path / "data")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: LibriSpeech: nothing at ") and "openslr.org/12" in line
    assert not (tmp_path / "data").exists()


def test_root_overrides_db_root_for_one_corpus(shared_corpora: Path, tmp_path: Path) -> None:
    elsewhere = f"librispeech={shared_corpora / 'LibriSpeech'}"
    options = ("--db_root", tmp_path, "--root", elsewhere, "--output", tmp_path / "data")
    result = run("--mixture", "real", *options)
    assert result.stderr.startswith("error: Common Voice: nothing at ")
    wrong = run("--mixture", "real", "--db_root", tmp_path, "--root", "libri=/x")
    assert wrong.stderr.startswith("error: --root libri=/x: not CORPUS=DIR")


def test_only_used_corpora_need_a_root(shared_corpora: Path, tmp_path: Path) -> None:
    """--db_root is not needed if every corpus has --root."""
    mixtures = tmp_path / "mixtures.yaml"
    mixtures.write_text(
        "\ufefftiny:\n"
        "  train: [commonvoice nl train]\n  valid: [commonvoice nl dev]\n  test: [mls nl test]\n",
        encoding="utf-8",
    )
    options = [
        "--mixtures",
        mixtures,
        "--mixture",
        "tiny",
        "--output",
        tmp_path / "data",
        "--nj",
        2,
    ]
    options += ["--root", f"commonvoice={shared_corpora / 'commonvoice'}"]
    without = run(*options)
    assert without.returncode == 1
    assert without.stderr.startswith("error: no folder for mls; give --db_root")
    assert without.stderr.count("\n") == 1
    result = run(*options, "--root", f"mls={shared_corpora / 'mls'}")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "data/test_mls_nl/wav.scp").is_file()
