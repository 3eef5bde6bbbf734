import re

import pytest
import yaml

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare import published
from espnet_mlma.text import LANGUAGES


def value(figures, system, source, lang, corpus, metric="wer"):
    wanted = (system, source, lang, corpus, metric)
    [found] = [f for f in figures if (f.system, f.source, f.lang, f.corpus, f.metric) == wanted]
    return found


# As the paper prints them, by table and system: language, corpora, WER.
PAPER = """
mlma-table-3 mlma-conformer-ls960    en ls-clean ls-other  4.27 11.29
mlma-table-3 mlma-conmamba-ls960     en ls-clean ls-other  4.05 10.50
mlma-table-4 mlma-conmamba-3334h     en ls cv vp           3.6 18.8 10.7
mlma-table-4 mlma-conmamba-3334h     it cv vp mls          11.4 24.8 13.4
mlma-table-4 mlma-conformer-3334h    en ls cv vp           4.4 22.3 11.5
mlma-table-4 mlma-conformer-3334h    it cv vp mls          14.3 23.7 14.3
mlma-table-4 fama                    en cv vp              13.8 8.9
mlma-table-4 fama                    it cv vp mls          7.3 15.7 12.6
mlma-table-4 owsm-v3.1-medium        en cv vp              11.9 8.4
mlma-table-4 owsm-v3.1-medium        it cv vp mls          12.5 24.0 19.3
mlma-table-4 owsm-ctc-v3.1           en ls cv vp           2.4 12.1 8.6
mlma-table-4 owsm-ctc-v3.1           it mls                22.1
mlma-table-4 whisper-large-v3        en cv vp              11.2 7.1
mlma-table-4 whisper-large-v3        it cv vp mls          6.5 18.8 8.8
mlma-table-5 mlma-conmamba-11840h    en ls cv vp fl        7.2 23.2 11.5 19.2
mlma-table-5 mlma-conmamba-11840h    it cv vp mls fl       13.0 24.5 13.3 12.5
mlma-table-5 mlma-conmamba-11840h    fr cv vp mls fl       15.0 14.8 9.1 19.6
mlma-table-5 mlma-conmamba-11840h    es cv vp mls fl       11.2 12.9 6.5 10.6
mlma-table-5 mlma-conmamba-11840h    de cv vp mls fl       12.9 16.1 9.5 15.4
mlma-table-5 mlma-conmamba-11840h    nl cv vp mls fl       16.8 21.5 14.8 27.9
mlma-table-5 owsm-ctc-v3.1           it mls                22.1
mlma-table-5 owsm-ctc-v3.1           fr mls                12.9
mlma-table-5 owsm-ctc-v3.1           es mls                10.3
mlma-table-5 owsm-ctc-v3.1           de mls                11.9
mlma-table-5 owsm-ctc-v3.1           nl mls                20.4
mlma-table-6 mlma-conmamba-31.6m     en cv                 23.00
mlma-table-6 mlma-conmamba-31.6m     it cv                 10.92
mlma-table-6 mlma-conmamba-42m       en cv                 21.04
mlma-table-6 mlma-conmamba-42m       it cv                 10.42
mlma-table-7 mlma-conmamba-710h      en ls cv vp fl        5.3 56.5 32.8 35.4
mlma-table-7 mlma-conmamba-710h      it cv vp mls fl       11.7 34.8 30.8 10.2
mlma-table-7 mlma-conmamba-1210h     en ls cv vp fl        3.9 47.1 24.5 26.3
mlma-table-7 mlma-conmamba-1210h     it cv vp mls fl       11.9 34.9 31.8 10.6
mlma-table-7 mlma-conmamba-3334h     en ls cv vp fl        3.6 18.8 10.7 14.9
mlma-table-7 mlma-conmamba-3334h     it cv vp mls fl       11.4 24.8 13.4 13.1
"""


def test_the_papers_figures_are_complete():
    expected = {}
    for line in PAPER.split("\n")[1:-1]:
        table, system, lang, *rest = line.split()
        corpora, values = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        for corpus, number in zip(corpora, values, strict=True):
            expected[system, table, lang, corpus] = float(number)
    found = {
        (f.system, f.source, f.lang, f.corpus): f.value
        for f in published.load_published().figures
        if f.source.startswith("mlma-table") and f.metric == "wer"
    }
    assert found == expected


def test_figures_of_other_systems():
    figures = published.load_published().figures
    expected = {
        ("owsm-v3.1-medium", "owsm-v3.1", "nl", "mls"): 18.1,
        ("owsm-ctc-v4", "owsm-v4-fleurs", "fr", "fl"): 9.67,
        ("zipformer-cr-ctc-64m", "icefall", "en", "ls-clean"): 2.12,
    }
    assert {key: value(figures, *key).value for key in expected} == expected


def test_the_papers_averages_are_those_of_its_rows():
    """Table 5 is consistent with itself to the digit it prints."""
    figures = [f for f in published.load_published().figures if f.source == "mlma-table-5"]
    for lang in LANGUAGES:
        system = "mlma-conmamba-11840h"
        row = [f.value for f in figures if (f.system, f.lang, f.metric) == (system, lang, "wer")]
        average = value(figures, system, "mlma-table-5", lang, "any", "mean_wer").value
        assert sum(row) / len(row) == pytest.approx(average, abs=0.1)


def test_figures_carry_their_caveats():
    figures = published.load_published().figures
    for figure in figures:
        is_owsm = figure.system.startswith("owsm")
        assert ("cv-leak" in figure.caveats) == (is_owsm and figure.corpus == "cv")
        assert ("second-hand" in figure.caveats) == figure.second_hand
        if figure.corpus == "fl" and figure.metric == "wer":
            assert ("fleurs-seen" if is_owsm else "unseen") in figure.caveats
    quoted = value(figures, "whisper-large-v3", "mlma-table-4", "it", "mls")
    assert quoted.second_hand
    # The first two models of Table 7 were trained on LibriSpeech and Italian Common Voice only.
    for system in ("mlma-conmamba-710h", "mlma-conmamba-1210h"):
        of_system = {(f.lang, f.corpus): f.caveats for f in figures if f.system == system}
        seen = {place for place, caveats in of_system.items() if "unseen" not in caveats}
        assert len(of_system) == 8 and seen == {("en", "ls"), ("it", "cv")}


def test_all_sources_and_systems_are_used():
    quoted = published.load_published()
    sources = {figure.source for figure in quoted.figures}
    sources |= {system.source for system in quoted.systems.values() if system.source}
    assert sources == set(quoted.sources)
    assert {figure.system for figure in quoted.figures} == set(quoted.systems)


def test_systems_are_chosen_by_names_and_prefixes():
    quoted = published.load_published()

    def chosen(*names):
        return {figure.system for figure in quoted.choose(names)}

    assert chosen("fama") == {"fama"}
    assert chosen("owsm-ctc-v3.1", "fama") == {"owsm-ctc-v3.1", "fama"}
    assert "owsm-v3.1-medium" not in chosen("owsm-ctc") < chosen("owsm")
    with pytest.raises(MlmaError, match="'owsm-c'; .* owsm-ctc-v4, "):
        quoted.choose(["owsm-c"])


GOOD = {
    "caveats": {"second-hand": "quoted"},
    "sources": {"paper": "a paper"},
    "systems": {"one": {"name": "One", "parameters": 10, "source": "paper"}},
    "figures": [
        {"system": "one", "source": "paper", "metric": "wer", "values": {"en": {"ls": 1.5}}}
    ],
}


def changed(place: str, entry, key: str, new):
    """GOOD with one key of one entry changed, or removed."""
    contents = yaml.safe_load(yaml.safe_dump(GOOD))
    target = contents[place][entry]
    if new is None:
        del target[key]
    else:
        target[key] = new
    return contents


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (changed("figures", 0, "source", None), "figures, entry 1 (one): numbers without a source"),
        (changed("figures", 0, "source", "web"), "source 'web' is not in sources"),
        (changed("figures", 0, "system", "two"), "entry 1 (two): not in systems"),
        (changed("figures", 0, "metric", "bleu"), "metric 'bleu'; use one of wer"),
        (changed("figures", 0, "metric", None), "metric is missing"),
        (changed("figures", 0, "caveats", ["leak"]), "caveat 'leak' is not in caveats"),
        (changed("figures", 0, "value", 2), "unknown key 'value'; use caveats"),
        (changed("figures", 0, "values", {"en": {"ls": "1,5"}}), "en ls: '1,5' is not a number"),
        (changed("figures", 0, "values", {"en": {"ls": True}}), "en ls: True is not a number"),
        (changed("systems", "one", "source", None), "systems: one: numbers without a source"),
        (changed("systems", "one", "parameters", "1B"), "parameters: '1B' is not a number"),
        ({"figures": []}, "needs exactly the keys caveats, sources, systems, figures"),
    ],
)
def test_errors_name_file_and_entry(tmp_path, contents, message):
    path = tmp_path / "figures.yaml"
    path.write_text(yaml.safe_dump(contents))
    with pytest.raises(MlmaError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        published.load_published(path)


def test_a_valid_file_is_read(tmp_path):
    path = tmp_path / "figures.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    [figure] = published.load_published(path).figures
    assert (figure.value, figure.second_hand, figure.caveats) == (1.5, False, ())
    path.write_text("figures: [")
    with pytest.raises(MlmaError, match="not a readable YAML file"):
        published.load_published(path)
