import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

TAG = "decode_ctc_best_path_asr_model_valid.cer_ctc.ave"

# id, language, corpus, reference, hypothesis (None: missing)
UTTERANCES = {
    "test_ls_en": [
        ("ls_en_1-a", "en", "librispeech", "It's cold, today!", "it's cold today"),
        ("ls_en_2-a", "en", "librispeech", "a fox", "a vox"),
    ],
    "test_cv_en": [("cv_en_1-a", "en", "commonvoice", "good morning to all", None)],
    "test_cv_fr": [
        ("cv_fr_1-a", "fr", "commonvoice", "L’été est là", "l'été est la"),
        ("cv_fr_1-b", "fr", "commonvoice", "oui", ""),
    ],
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name, utterances in UTTERANCES.items():
        data = tmp_path / "dump" / "raw" / name
        decoded = tmp_path / "exp" / "asr_x" / TAG / name
        data.mkdir(parents=True)
        decoded.mkdir(parents=True)
        tables: dict[Path, list[str]] = {decoded / "text": []}
        for id_, lang, corpus, reference, hypothesis in utterances:
            values = {"text": reference, "utt2lang": lang, "utt2category": corpus}
            values["utt2spk"] = id_.partition("-")[0]
            for table, value in values.items():
                tables.setdefault(data / table, []).append(f"{id_} {value}")
            if hypothesis is not None:
                tables[decoded / "text"].append(f"{id_} {hypothesis}".rstrip())
        for path, lines in tables.items():
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tmp_path


def run(work: Path, *more: str, sets: str = " ".join(UTTERANCES)) -> subprocess.CompletedProcess:
    options = ["--dump", "dump/raw", "--decode_dir", f"exp/asr_x/{TAG}", "--sets", sets]
    command = [sys.executable, "-m", "espnet_mlma.cli", "recipe", "score", *options]
    command += more or CHAR
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)


CHAR = ("--token_type", "char")


def rows(results: Path) -> dict[str, str]:
    """Read RESULTS.md: the cells of each row by its first three."""
    lines = [line for line in results.read_text(encoding="utf-8").splitlines() if line[0:1] == "|"]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {" ".join(row[:3]).strip(): " ".join(row[3:]) for row in cells}


def test_results_have_a_row_per_language_and_corpus_and_the_averages(work):
    done = run(work)
    assert done.returncode == 0, done.stderr
    table = rows(work / "exp" / "asr_x" / "RESULTS.md")
    assert list(table) == [
        "en commonvoice test_cv_en",
        "en librispeech test_ls_en",
        "en all",
        "fr commonvoice test_cv_fr",
        "all micro average",
        "all mean of 2 languages",
    ]
    # WER CER TER, sentences, words, sub, del, ins, missing
    assert table["en librispeech test_ls_en"] == "20.0 5.0 5.0 2 5 1 0 0 0"
    assert table["en commonvoice test_cv_en"] == "100.0 100.0 100.0 1 4 0 4 0 1"
    assert table["en all"] == "55.6 51.3 51.3 3 9 1 4 0 1"
    assert table["fr commonvoice test_cv_fr"] == "50.0 26.7 26.7 2 4 1 1 0 0"
    assert table["all micro average"] == "53.8 44.4 44.4 5 13 2 5 0 1"
    assert table["all mean of 2 languages"].strip() == "52.8 39.0 39.0"
    assert "test_cv_en: 1 of 1 without hypothesis" in done.stdout
    text = (work / "exp" / "asr_x" / "RESULTS.md").read_text(encoding="utf-8")
    assert "`decode_ctc_best_path`, model: `valid.cer_ctc.ave`" in text


def test_right_languages_are_counted_if_decoding_wrote_them(work):
    decoded = work / "exp" / "asr_x" / TAG
    results = work / "exp" / "asr_x" / "RESULTS.md"
    run(work)
    assert "right language" not in results.read_text(encoding="utf-8")
    (decoded / "test_ls_en" / "utt2lang").write_text("ls_en_1-a en\nls_en_2-a nl\n")
    (decoded / "test_cv_en" / "utt2lang").write_text("")
    (decoded / "test_cv_fr" / "utt2lang").write_text("cv_fr_1-a fr\ncv_fr_1-b\n")
    run(work)
    line = "Utterances with the right language (%): en 33.3, fr 50.0, all 40.0."
    assert line in results.read_text(encoding="utf-8").splitlines()


def test_every_set_gets_its_files_and_a_second_run_the_same(work):
    first = run(work)
    for name in UTTERANCES:
        for unit in ("wer", "cer", "ter"):
            folder = work / "exp" / "asr_x" / TAG / name / f"score_{unit}"
            assert sorted(path.name for path in folder.iterdir()) == [
                "hyp.trn",
                "ref.trn",
                "result.txt",
            ]
    characters = work / "exp" / "asr_x" / TAG / "test_ls_en" / "score_cer" / "ref.trn"
    assert "a <space> f o x (ls_en_2-ls_en_2-a)" in characters.read_text(encoding="utf-8")
    assert run(work).stdout == first.stdout


def test_two_decodings_share_results(work):
    run(work)
    other = work / "exp" / "asr_x" / "decode_other"
    (work / "exp" / "asr_x" / TAG).rename(other)
    (work / "exp" / "asr_x" / TAG).mkdir()
    for name in UTTERANCES:
        (work / "exp" / "asr_x" / TAG / name).mkdir()
        text = (other / name / "text").read_bytes()
        (work / "exp" / "asr_x" / TAG / name / "text").write_bytes(text)
    assert run(work).returncode == 0
    text = (work / "exp" / "asr_x" / "RESULTS.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 2


def test_tokens_of_bpe_are_the_pieces_of_the_model(work):
    sentences = [u[3] for utterances in UTTERANCES.values() for u in utterances] * 20
    (work / "train.txt").write_text("\n".join(sentences).lower() + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(work / "train.txt"),
        model_prefix=str(work / "bpe"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    done = run(work, "--token_type", "bpe", "--bpemodel", "bpe.model")
    assert done.returncode == 0, done.stderr
    trn = work / "exp" / "asr_x" / TAG / "test_ls_en" / "score_ter" / "ref.trn"
    tokens = trn.read_text(encoding="utf-8").splitlines()[1].rpartition(" (")[0]
    assert tokens.replace(" ", "") == "▁a▁fox"


def write_more(path: str, line: str):
    def change(work: Path) -> None:
        with (work / path).open("a", encoding="utf-8") as table:
            table.write(f"{line}\n")

    return change


BREAKAGES = {
    "an extra hypothesis": (
        write_more(f"exp/asr_x/{TAG}/test_cv_fr/text", "cv_fr_9-x oui"),
        CHAR,
        "test_cv_fr/text: 'cv_fr_9-x' is not in",
    ),
    "a hypothesis twice": (
        write_more(f"exp/asr_x/{TAG}/test_cv_fr/text", "cv_fr_1-b oui"),
        CHAR,
        "text:3: duplicate key cv_fr_1-b",
    ),
    "a set that was not decoded": (
        lambda work: (work / f"exp/asr_x/{TAG}/test_cv_fr/text").unlink(),
        CHAR,
        "test_cv_fr/text: no such file; run stage 12",
    ),
    "a set without languages": (
        lambda work: (work / "dump/raw/test_cv_fr/utt2lang").write_text("cv_fr_1-a fr\n"),
        CHAR,
        "utt2lang: cv_fr_1-b is missing",
    ),
    "an empty set": (
        lambda work: [
            path.write_text("")
            for folder in ("dump/raw", f"exp/asr_x/{TAG}")
            for path in (work / folder / "test_cv_fr").iterdir()
        ],
        CHAR,
        "test_cv_fr: the set has no utterance",
    ),
    "bpe without a model": (lambda work: None, ("--token_type", "bpe"), "--bpemodel"),
    "a model that is none": (
        lambda work: (work / "bad.model").write_text("no"),
        ("--token_type", "bpe", "--bpemodel", "bad.model"),
        "bad.model: no sentencepiece model",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_bad_input_is_one_line_and_leaves_no_results(work, breakage):
    change, options, message = BREAKAGES[breakage]
    change(work)
    done = run(work, *options)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (work / "exp" / "asr_x" / "RESULTS.md").exists()


def test_no_set_is_an_error(work):
    assert "--sets names no set" in run(work, sets=" ").stderr
