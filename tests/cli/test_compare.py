"""`mlma compare`: from decode folders to tables."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

TAG = "decode_ctc_best_path_asr_model_valid.cer_ctc.ave"
MEASURED = {
    "system": "asr_good",
    "model": "/not/here",
    "run": "today",
    "sets": ["test_cv_it", "test_fl_en"],
    "training_hours": 11840.0,
    "audio_seconds": 3600.0,
    "seconds": 36.0,
    "rtf": 0.01,
    "peak_bytes": 2**30,
    "machine": "two cores",
    "usd_per_machine_hour": 0.5,
}
# id, language, corpus, reference, and hypotheses of the systems `good` and `bad` (None: missing).
UTTERANCES = {
    "test_cv_it": [
        ("cv_it_1-a", "it", "cv", "l'uomo va a casa", "l'uomo va a casa", "l uomo va casa"),
        ("cv_it_2-a", "it", "cv", "il gatto dorme qui", "il gatto dorme qui", "il matto dorme qua"),
    ],
    "test_fl_en": [
        ("fl_en_1-a", "en", "fl", "it is cold today", "it's cold today", "it is bold today"),
        ("fl_en_2-a", "en", "fl", "a fox", "a fox", None),
        ("fl_en_3-a", "en", "fl", "two|three", "two three", "two three four"),
    ],
}


def write_table(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id_} {value}\n" for id_, value in rows), encoding="utf-8")


def write_decoding(recipe: Path, system: str, test_set: str, **facts: object) -> None:
    decoding = {"language_model": None, "options": {}} | facts
    file = recipe / "exp" / system / TAG / test_set / "decoding.yaml"
    file.write_text(yaml.safe_dump(decoding))


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe with two decoded systems, one of them trained on Common Voice alone."""
    for name, utterances in UTTERANCES.items():
        data = tmp_path / "dump" / "raw" / name
        for column, table in enumerate(("utt2lang", "utt2category", "text"), 1):
            write_table(data / table, [(row[0], row[column]) for row in utterances])
        write_table(data / "utt2spk", [(row[0], row[0].partition("-")[0]) for row in utterances])
        for column, system in ((4, "good"), (5, "bad")):
            hypotheses = [(row[0], row[column]) for row in utterances if row[column] is not None]
            write_table(tmp_path / "exp" / system / TAG / name / "text", hypotheses)
            write_decoding(tmp_path, system, name)
    for table, value in (("utt2category", "cv"), ("utt2lang", "it")):
        write_table(tmp_path / "dump" / "raw" / "train" / table, [("u1", value), ("u2", value)])
    rows = [["dump/raw/train/wav.scp", "speech", "kaldi_ark"]]
    config = {"train_data_path_and_name_and_type": rows}
    (tmp_path / "exp" / "good" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def systems(recipe: Path) -> list[str]:
    return [f"{name}={recipe / 'exp' / name / TAG}" for name in ("good", "bad")]


def rows(markdown: str, title: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell without its marks."""
    [table] = re.findall(rf"^## {re.escape(title)}[^|]*((?:^\|.*\n)+)", markdown, re.M)
    cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_counts_are_by_language_and_corpus(mlma, recipe):
    code, out, err = mlma("compare", *systems(recipe), "--format", "json")
    assert (code, err) == (0, "")
    contents = json.loads(out)
    scores = {(s["system"], s["lang"], s["corpus"]): s for s in contents["scores"]}
    assert set(scores) == {
        (system, lang, corpus)
        for system in ("good", "bad")
        for lang, corpus in (("it", "cv"), ("en", "fl"), ("all", "all"))
    }
    assert scores["good", "it", "cv"]["wer"] == 0
    assert scores["bad", "it", "cv"]["words"] == {"correct": 4, "sub": 3, "del": 1, "ins": 1}
    bad = scores["bad", "en", "fl"]
    assert bad["words"] == {"correct": 5, "sub": 1, "del": 2, "ins": 1}
    assert (bad["wer"], bad["sentences"], bad["missing"]) == (50, 3, 1)
    # "it's" for "it is" is a substitution and a deletion.
    assert scores["good", "all", "all"]["wer"] == pytest.approx(100 * 2 / 16)
    assert scores["bad", "all", "all"]["words"]["sub"] == 4


def test_both_test_sets_of_librispeech_have_a_column_each(mlma, recipe):
    for name in ("test_ls_en", "test_lsother_en"):
        id_, data = f"ls_{name}", recipe / "dump" / "raw" / name
        for table, value in (("utt2lang", "en"), ("utt2category", "ls"), ("text", "a fox")):
            write_table(data / table, [(id_, value)])
        write_table(data / "utt2spk", [(id_, "ls_1")])
        write_table(recipe / "exp" / "good" / TAG / name / "text", [(id_, "a fox")])
        write_decoding(recipe, "good", name)
    published = ["--published", "mlma-conmamba-ls960"]
    code, out, err = mlma("compare", systems(recipe)[0], "--format", "json", *published)
    assert code == 0, err
    found = json.loads(out)
    assert {"ls-clean", "ls-other"} < {score["corpus"] for score in found["scores"]}
    assert {figure["corpus"] for figure in found["quoted"]} == {"ls-clean", "ls-other"}


@pytest.mark.parametrize(
    "name, column", [("test_ls_en", "LS clean"), ("test_lsother_en", "LS other")]
)
def test_a_test_set_of_librispeech_has_its_column_alone_too(mlma, recipe, name, column):
    """And figures of which the source does not say the test set stand beside either."""
    data = recipe / "dump" / "raw" / name
    for table, value in (("utt2lang", "en"), ("utt2category", "ls"), ("text", "a fox")):
        write_table(data / table, [("ls_1-a", value)])
    write_table(data / "utt2spk", [("ls_1-a", "ls_1")])
    write_table(recipe / "exp" / "good" / TAG / name / "text", [("ls_1-a", "a fox")])
    write_decoding(recipe, "good", name)
    code, out, err = mlma("compare", systems(recipe)[0], "--published", "mlma-conmamba-3334h")
    assert (code, err) == (0, "")
    english = rows(out, "English (en), WER (%)")
    assert set(english["System"][4:]) == {"LS", column, "FL"}


def test_json_has_no_number_that_json_does_not_know(mlma, recipe):
    """z is infinite where each of many segments differs by the same one word."""
    ids = [f"fl_en_{number}-a" for number in range(12)]
    data = recipe / "dump" / "raw" / "test_fl_en"
    about = {"utt2lang": "en", "utt2category": "fl", "text": "a fox", "utt2spk": "fl_en_1"}
    for table, value in about.items():
        write_table(data / table, [(id_, value) for id_ in ids])
    for system, text in (("good", "a fox"), ("bad", "a box")):
        file = recipe / "exp" / system / TAG / "test_fl_en" / "text"
        write_table(file, [(id_, text) for id_ in ids])

    def refuse(name):
        raise AssertionError(name)

    out = mlma("compare", *systems(recipe), "--format", "json", "--published", "none")[1]
    pairs = json.loads(out, parse_constant=refuse)["pairs"]
    assert [pair["mapsswe"]["z"] for pair in pairs if pair["lang"] == "en"] == [None]


def test_pairs_are_tested_on_the_utterances_of_both(mlma, recipe):
    shutil.rmtree(recipe / "exp" / "bad" / TAG / "test_cv_it")
    code, out, _ = mlma("compare", *systems(recipe), "--format", "json", "--published", "none")
    assert code == 0
    [apart], [pair] = (json.loads(out)[key] for key in ("apart", "pairs"))
    assert apart.startswith("only good decoded test_cv_it; ")
    assert apart in mlma("compare", *systems(recipe))[1]
    assert (pair["first"], pair["second"]) == ("good", "bad")
    assert (pair["lang"], pair["corpus"], pair["sentences"]) == ("en", "fl", 3)
    assert pair["speakers"] == 3
    assert pair["wer"]["difference"] == pytest.approx(100 * (2 - 4) / 8)
    assert pair["wer"]["low"] is pair["wer"]["p"] is None  # three speakers tell nothing of others
    assert (pair["mapsswe"]["segments"], pair["mapsswe"]["p"]) == (3, None)


def test_whispers_normaliser_gives_rows_of_its_own(mlma, recipe):
    pytest.importorskip("whisper_normalizer")
    code, out, err = mlma("compare", *systems(recipe), "--normaliser", "both", "--format", "json")
    assert (code, err) == (0, "")
    scores = {
        (s["system"], s["normaliser"], s["lang"]): s["wer"] for s in json.loads(out)["scores"]
    }
    assert scores["good", "ours", "en"] == 25
    assert scores["good", "whisper", "en"] == 0  # "it's" is "it is" there
    assert scores["bad", "ours", "it"] == 62.5
    assert scores["bad", "whisper", "it"] == pytest.approx(100 * 3 / 9)  # "l uomo" is right there


def test_markdown_has_both_systems_the_published_and_their_caveats(mlma, recipe):
    code, out, err = mlma("compare", *systems(recipe), "--published", "mlma,owsm-ctc")
    assert (code, err) == (0, "")
    english = rows(out, "English (en), WER (%)")
    assert english["System"] == ["Normaliser", "Source", "M", "Hours", "FL"]
    assert english["goodᵃ"] == ["ours", "here", "", "", "25.00ᵇ"]
    assert english["badᵃ"][-1] == "50.00ᶜ"  # nobody knows what it was trained on
    italian = rows(out, "Italian (it), WER (%)")
    assert italian["goodᵃ"][-1] == "0.00"
    [six] = [row for name, row in italian.items() if name.startswith("MLMA ConMamba, six")]
    assert six[3:] == ["11840", "13.0"]
    caveats = dict(re.findall(r"^- (\w+): (.*)$", out, re.M))
    assert caveats["a"] == "No language model in decoding."
    assert caveats["b"] == "Nothing of this corpus in this language was in the training data."
    assert caveats["c"].startswith("Hypotheses are missing")
    assert "FLEURS names no speakers, so each clip counts" in out
    assert re.search(r"^1\. M\. Ali, .*, Table \d$", out, re.M)
    assert "Zipformer" not in out


def test_a_decoding_by_a_published_systems_name_has_its_caveats(mlma, recipe):
    folder = recipe / "exp" / "bad" / TAG
    code, out, _ = mlma("compare", f"owsm-ctc-v3.1={folder}", "--format", "json")
    assert code == 0
    caveats = {score["corpus"]: score["caveats"] for score in json.loads(out)["scores"]}
    assert caveats["cv"] == ["no-lm", "cv-leak"]
    assert caveats["fl"] == ["no-lm", "fleurs-seen", "missing"]
    assert caveats["all"] == ["no-lm", "fleurs-seen", "missing", "cv-leak"]


@pytest.mark.parametrize(
    "system", ["espnet/owsm_ctc_v3.1_1B", "owsm_ctc_v3.2_ft_1B", "espnet/owsm_ctc_v4_1B"]
)
def test_a_published_model_that_was_measured_here_has_its_caveats(mlma, recipe, system):
    folder = recipe / "exp" / "bad" / TAG
    (folder / "measured.json").write_text(json.dumps(MEASURED | {"system": system}))
    code, out, _ = mlma("compare", f"any={folder}", "--format", "json", "--published", "none")
    assert code == 0
    caveats = {score["corpus"]: score["caveats"] for score in json.loads(out)["scores"]}
    assert caveats["cv"] == ["no-lm", "cv-leak"]


def test_a_language_model_is_a_caveat_and_without_decoding_yaml_it_is_unknown(mlma, recipe):
    options = (systems(recipe)[1], "--format", "json", "--published", "none")
    for lm, expected in (("word.arpa", ["lm"]), (None, ["no-lm"])):
        for name in UTTERANCES:
            write_decoding(recipe, "bad", name, language_model=lm)
        scores = json.loads(mlma("compare", *options)[1])["scores"]
        assert {score["corpus"]: score["caveats"] for score in scores}["cv"] == expected
    for file in recipe.glob("exp/bad/*/*/decoding.yaml"):
        file.unlink()
    scores = json.loads(mlma("compare", *options)[1])["scores"]
    assert {score["corpus"]: score["caveats"] for score in scores}["cv"] == []


def test_systems_without_a_shared_utterance_are_not_tested(mlma, recipe):
    good, bad = (recipe / "exp" / name / TAG for name in ("good", "bad"))
    shutil.rmtree(good / "test_cv_it")
    shutil.rmtree(bad / "test_fl_en")
    code, out, _ = mlma("compare", *systems(recipe))
    assert code == 0
    assert "good and bad share no utterance" in out


def test_utterances_that_one_lacks_are_counted(mlma, recipe):
    other = recipe / "other"
    shutil.copytree(recipe / "exp" / "bad", other / "exp" / "bad")
    shutil.copytree(recipe / "dump", other / "dump")
    for file in (*other.glob("dump/raw/test_fl_en/*"), *other.glob("exp/*/*/test_fl_en/text")):
        lines = [line for line in file.read_text().splitlines(True) if "fl_en_1" not in line]
        file.write_text("".join(lines))
    code, out, _ = mlma("compare", systems(recipe)[0], systems(other)[1])
    assert code == 0
    assert "only good decoded 1 utterances of other sets" in out


def test_an_unfinished_decoding_is_an_error(mlma, recipe):
    folder = recipe / "exp" / "bad" / TAG
    shutil.copytree(folder / "test_cv_it", folder / ".test_cv_it.new")
    assert mlma("compare", *systems(recipe))[0] == 0  # what a stopped stage 12 leaves
    (folder / "test_cv_it" / "text").unlink()
    code, _, err = mlma("compare", *systems(recipe))
    assert code == 1 and f"{folder / 'test_cv_it'}: no text, decoding did not finish" in err
    code, _, err = mlma("compare", f"good={folder.parent}")
    assert code == 1 and f"{folder.parent}: has no decoded set; give one of {TAG} in it" in err
    code, _, err = mlma("compare", f"good={recipe / 'dump' / 'raw'}")
    assert code == 1 and "test_cv_it: these are references; give a folder that stage 12" in err
    code, _, err = mlma("compare", f"good={folder / 'test_fl_en'}")
    assert code == 1 and "test_fl_en: this is one set; give the folder that contains it" in err
    chosen = ("--sets", "test_fl_en", "--published", "none")
    assert mlma("compare", *systems(recipe), *chosen)[0] == 0  # what is done, while others decode


def test_speakers_or_words_too_few_for_a_plot_have_none(mlma, recipe):
    for name, ids in (("test_cv_it", "cv_it_2"), ("test_fl_en", "fl_en_")):
        for file in (*recipe.glob(f"dump/raw/{name}/*"), *recipe.glob(f"exp/*/*/{name}/text")):
            lines = [line for line in file.read_text().splitlines(True) if ids not in line]
            file.write_text("".join(lines))
    shutil.rmtree(recipe / "exp" / "bad" / TAG / "test_fl_en")
    shutil.rmtree(recipe / "exp" / "good" / TAG / "test_fl_en")
    code, text, err = mlma("compare", *systems(recipe), "--format", "html")
    assert (code, err) == (0, "")
    assert text.count('<svg class="plot"') == 2  # of one speaker there is no interval
    (recipe / "dump" / "raw" / "test_cv_it" / "text").write_text("cv_it_1-a\n")
    code, text, err = mlma("compare", *systems(recipe), "--format", "html", "--published", "none")
    assert (code, err, text.count('<svg class="plot"')) == (0, "", 0)


def test_names_do_not_part_cells(mlma, recipe):
    odd = [system.replace("=", "|x=") for system in systems(recipe)]
    code, out, _ = mlma("compare", *odd)
    assert code == 0
    [head, rule] = re.findall(r"^\| Language \| Corpus \| Utt.*\n.*$", out, re.M)[0].split("\n")
    assert len(re.findall(r"(?<!\\)\|", head)) == rule.count("|")


def test_what_was_measured_is_in_the_table_of_costs(mlma, recipe):
    path = recipe / "exp" / "good" / TAG / "measured.json"
    path.write_text(json.dumps(MEASURED))
    for name in UTTERANCES:
        write_decoding(recipe, "good", name, parameters=31_600_000)
    code, out, _ = mlma("compare", *systems(recipe))
    assert code == 0
    cost = rows(out, "Size and cost of systems decoded here")
    assert cost["good"] == ["two cores", "31.6", "11840", "3600", "0.01", "100", "1.00", "0.005"]
    assert set(cost["bad"]) == {""}
    assert rows(out, "Italian (it), WER (%)")["goodᵃ"][2:4] == ["31.6", "11840"]
    path.write_text(json.dumps(MEASURED).replace("rtf", "speed"))
    code, _, err = mlma("compare", *systems(recipe))
    assert code == 1
    assert err.startswith(f"error: {path}: not written by measuring ('rtf')")
    for wrong in ({"rtf": 0}, {"rtf": "0.1"}, {"seconds": None}, {"machine": None}):
        path.write_text(json.dumps(MEASURED | wrong))
        code, _, err = mlma("compare", *systems(recipe))
        assert code == 1
        assert err.startswith(f"error: {path}: not written by measuring (")
    path.write_text(json.dumps(MEASURED | {"sets": ["test_cv_it"]}))
    code, _, err = mlma("compare", *systems(recipe))
    assert code == 1
    assert err.startswith(
        f"error: {path}: has sets test_cv_it, but the folder differs in test_fl_en"
    )


def test_a_measured_model_has_the_caveats_of_its_training(mlma, recipe):
    """Wherever its decoding lies."""
    there = recipe / "elsewhere"
    shutil.copytree(recipe / "exp" / "good" / TAG, there)
    measured = MEASURED | {"model": str(recipe / "exp" / "good")}
    (there / "measured.json").write_text(json.dumps(measured))
    options = ["--dump", str(recipe / "dump" / "raw"), "--format", "json", "--published", "none"]
    code, out, err = mlma("compare", f"good={there}", *options)
    assert (code, err) == (0, "")
    caveats = {score["corpus"]: score["caveats"] for score in json.loads(out)["scores"]}
    assert caveats["cv"] == ["no-lm"]
    assert caveats["fl"] == ["no-lm", "unseen"]


def test_sizes_are_of_the_decoding_and_the_training_set(mlma, recipe):
    """Hours are without speed-perturbed copies."""
    lengths = [("u1", 8 * 3600 * 16000), ("u2", 2 * 3600 * 16000), ("sp0.9-u1", 16000)]
    table = recipe / "dump" / "raw" / "train" / "utt2num_samples"
    write_table(table, lengths)
    for name in UTTERANCES:
        write_decoding(recipe, "good", name, parameters=31_630_000)
    code, out, _ = mlma("compare", *systems(recipe), "--published", "none")
    assert code == 0
    italian = rows(out, "Italian (it), WER (%)")
    assert italian["goodᵃ"][1:4] == ["here", "31.63", "10"]
    assert italian["badᵃ"][1:4] == ["here", "", ""]
    cost = rows(out, "Size and cost of systems decoded here")
    assert cost["good"] == ["", "31.63", "10", *[""] * 5]
    options = (*systems(recipe), "--published", "none", "--format", "json")
    [good, bad] = json.loads(mlma("compare", *options)[1])["systems"]
    assert (good["parameters"], good["training_hours"]) == (31_630_000, 10.0)
    assert bad["parameters"] is bad["training_hours"] is None
    table.write_text("u1 many\n")
    code, _, err = mlma("compare", *systems(recipe))
    assert code == 1
    assert err.startswith(f"error: {table}: ") and err.endswith("run stage 3 again\n")


def test_the_data_of_the_initial_model_counts_too(mlma, recipe):
    """Its corpora are seen, and its hours are added."""
    write_table(recipe / "dump/raw/train/utt2num_samples", [("u1", 3600 * 16000)])
    for table, value in (("utt2category", "fl"), ("utt2lang", "en")):
        write_table(recipe / "dump/raw/train_fl" / table, [("v1", value)])
    write_table(recipe / "dump/raw/train_fl/utt2num_samples", [("v1", 7200 * 16000)])
    config = {"train_data_path_and_name_and_type": [["dump/raw/train_fl/wav.scp", "speech", "x"]]}
    start = recipe / "exp" / "start"
    start.mkdir()
    good = recipe / "exp" / "good" / "config.yaml"
    later = yaml.safe_load(good.read_text())
    good.write_text(yaml.safe_dump(later | {"init_param": ["exp/start/1.pth:encoder:encoder"]}))
    options = (systems(recipe)[0], "--published", "none", "--format", "json")
    found = json.loads(mlma("compare", *options)[1])  # the start's training is not known
    assert found["systems"][0]["training_hours"] is None
    assert {score["corpus"]: score["caveats"] for score in found["scores"]}["fl"] == ["no-lm"]
    (start / "config.yaml").write_text(yaml.safe_dump(config))
    found = json.loads(mlma("compare", *options)[1])
    assert found["systems"][0]["training_hours"] == 3
    caveats = {score["corpus"]: score["caveats"] for score in found["scores"]}
    assert caveats == {"cv": ["no-lm"], "fl": ["no-lm", "fleurs-seen"], "all": caveats["fl"]}


def test_a_linked_experiment_has_its_references_and_caveats(mlma, recipe):
    (recipe / "exp").rename(recipe / "disk")
    (recipe / "work").mkdir()
    (recipe / "dump").rename(recipe / "work" / "dump")
    (recipe / "work" / "exp").symlink_to(recipe / "disk")
    code, out, err = mlma("compare", *systems(recipe / "work"))
    assert (code, err) == (0, "")
    assert "Nothing of this corpus in this language was in the training data." in out


def test_sets_summed_in_one_corpus_are_named(mlma, recipe):
    for folder in (recipe / "dump" / "raw", *(recipe / "exp").glob(f"*/{TAG}")):
        shutil.copytree(folder / "test_cv_it", folder / "dev_cv_it")
    _, out, _ = mlma("compare", systems(recipe)[0])
    assert "good: it cv is the sum of dev_cv_it and test_cv_it" in out
    assert "the sum of" not in mlma("compare", systems(recipe)[0], "--sets", "test_cv_it")[1]


def test_intervals_with_fleurs_have_its_caveat(mlma, recipe):
    _, out, _ = mlma("compare", *systems(recipe), "--published", "none", "--format", "json")
    found = json.loads(out)
    marked = {(pair["lang"], pair["corpus"]): pair["caveats"] for pair in found["pairs"]}
    clips = ["clips-as-speakers"]
    assert marked == {("it", "cv"): [], ("en", "fl"): clips, ("all", "all"): clips}
    assert "so each clip counts as one of its own" in mlma("compare", *systems(recipe))[1]
    assert "so each clip counts" not in mlma("compare", systems(recipe)[0])[1]


def test_hours_that_are_not_known_here_have_their_source(mlma, recipe):
    path = recipe / "exp" / "bad" / TAG / "measured.json"
    measured = MEASURED | {"training_hours": None, "system": "owsm_ctc_v4_1B"}
    path.write_text(json.dumps(measured))
    code, out, _ = mlma("compare", f"mine={path.parent}", "--published", "none")
    assert code == 0
    italian = rows(out, "Italian (it), WER (%)")
    [line] = [row for name, row in italian.items() if name.startswith("mine")]
    assert line[1:4] == ["here, size [1]", "1010", "320000"]
    assert re.search(r"^1\. ESPnet, egs2/owsm_v4/s2t1$", out, re.M)


def test_a_bad_configuration_is_one_line(mlma, recipe):
    path = recipe / "exp" / "good" / "config.yaml"
    for contents in ("[", "- a", "a: b: c"):
        path.write_text(contents)
        code, _, err = mlma("compare", *systems(recipe))
        assert code == 1
        assert err.startswith(f"error: {path}: ") and err.count("\n") == 1


class Page(HTMLParser):
    """Counts what is open, and collects ids and addresses."""

    VOID = {"meta", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, content in attributes:
            if name == "id":
                self.ids.append(content)
            elif name in ("href", "src"):
                self.addresses.append(content)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_its_plots_have_all_figures(mlma, recipe):
    utterances = [(f"vp_it_{speaker}-a", "una casa") for speaker in range(6)]
    data = recipe / "dump" / "raw" / "test_vp_it"
    for table, value in (("utt2lang", "it"), ("utt2category", "vp")):
        write_table(data / table, [(id_, value) for id_, _ in utterances])
    write_table(data / "utt2spk", [(id_, id_) for id_, _ in utterances])
    for folder in (data, *(recipe / "exp" / name / TAG / data.name for name in ("good", "bad"))):
        write_table(folder / "text", utterances)
    for system in ("good", "bad"):
        write_decoding(recipe, system, data.name)
    odd = f"<b>&={recipe / 'exp' / 'bad' / TAG}"
    code, text, err = mlma("compare", *systems(recipe)[:1], odd, "--format", "html")
    assert (code, err) == (0, "")
    page = Page(text)
    assert page.open == []
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses if "caveat-" in address} <= set(page.ids)
    assert "://" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text
    plots = [
        ElementTree.fromstring(svg) for svg in re.findall(r"<svg class=\"plot\".*?</svg>", text)
    ]
    # English, Italian, kinds of errors, the pair.
    assert len(plots) == 4
    titles = [title.text for title in plots[0].iter("title")]
    assert "good: 25" in titles and "<b>&: 50" in titles
    assert "OWSM-CTC v4: 6.37" in titles
    # A mark is one system's: no two names have one shape and colour and filling.
    marks = re.findall(r'<td class="name"><svg class="key".*?<path (.*?)></path></svg>(.*?)<', text)
    looks = {}
    for look, name in marks:
        assert looks.setdefault(look, name) == name


def test_a_file_is_written_with_what_would_be_printed(mlma, recipe):
    file = recipe / "new" / "comparison.md"
    assert mlma("compare", *systems(recipe), "-o", file) == (0, f"wrote {file}\n", "")
    assert file.read_text(encoding="utf-8") == mlma("compare", *systems(recipe))[1]
    page = file.with_suffix(".html")
    assert mlma("compare", *systems(recipe), "-o", page)[0] == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_test_sets_are_chosen(mlma, recipe):
    """Their sum is of them alone; the cost stays that of the run."""
    for system in ("good", "bad"):
        file = recipe / "exp" / system / TAG / "measured.json"
        file.write_text(json.dumps(MEASURED))
    code, out, _ = mlma("compare", *systems(recipe), "--sets", "test_cv_it", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert {score["corpus"] for score in found["scores"]} == {"cv"}
    assert {system["measured"]["audio_seconds"] for system in found["systems"]} == {3600}
    assert {pair["sentences"] for pair in found["pairs"]} == {2}
    code, _, err = mlma("compare", *systems(recipe), "--sets", "test_cv_it,test_x")
    assert code == 1
    assert "has no decoded set 'test_x'; choose from test_cv_it test_fl_en" in err


def test_without_systems_all_published_figures_are_printed(mlma):
    code, out, err = mlma("compare")
    assert (code, err) == (0, "")
    english = rows(out, "English (en), WER (%)")
    assert any(name.startswith("ESPnet E-Branchformer-CTC, LS-100") for name in english)
    assert "Earnings-22" in out
    assert "## Other published figures" in out and "453.97" in out
    assert "minus" not in out.partition("## Caveats")[0]


def test_a_published_system_that_is_asked_for_in_vain_is_named(mlma, recipe):
    _, out, err = mlma("compare", *systems(recipe)[:1], "--published", "mlma,mamba-asr")
    assert err == "no figure on what was decoded: mamba-asr\n"
    assert "Mamba-ASR" not in out and "MLMA ConMamba" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--published", "none"], 2, "nothing to compare"),
        (["good"], 2, "'good' is not NAME=DECODE_FOLDER"),
        (["two\nlines=good"], 2, "cannot be written in a table; give another"),
        (["a=b", "a=c"], 2, "two systems have one name"),
        (["a=nowhere"], 1, "nowhere: no such folder; give one that stage 12 wrote, or decode"),
        (["--format", "md", "-o", "x.html"], 2, "x.html and --format md: give one of both"),
        (["--published", "none,mlma"], 1, "no published system has the name 'none'"),
        (["--published", ""], 2, "--published is empty"),
        (["--sets", "test_cv_en"], 2, "--sets is for decoding folders"),
        (["--sets", ","], 2, "',' names no test set"),
        (["-o", "a.md", "-o", "b.html"], 2, "given twice; run the command once for"),
        (["-o", "/"], 2, "-o / is a folder; name a file"),
        (["-o", "x.pdf"], 2, "x.pdf ends as none of .md, .json, .html; give --format"),
        (["--published", "nobody"], 1, "no published system has the name 'nobody'"),
    ],
)
def test_wrong_usage_is_one_line(mlma, arguments, code, message):
    found, out, err = mlma("compare", *arguments)
    assert (found, out) == (code, "")
    assert message in err and err.count("\n") == 1


def test_references_that_differ_or_are_not_there_are_named(mlma, recipe, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(recipe / "exp", other / "exp")
    good, bad = systems(recipe)[0], systems(other)[1]
    code, _, err = mlma("compare", good, bad)
    assert code == 1
    assert "no dump/raw above it; give the references with --dump" in err
    assert mlma("compare", good, bad, "--dump", recipe / "dump" / "raw")[0] == 0
    shutil.copytree(recipe / "dump", other / "dump")
    assert mlma("compare", good, bad)[0] == 0
    text = recipe / "dump" / "raw" / "test_cv_it" / "text"
    text.write_text(text.read_text().replace("gatto", "cane"))
    code, _, err = mlma("compare", good, bad)
    assert code == 1
    assert "test_cv_it/cv_it_2-a: good and bad have different references" in err
