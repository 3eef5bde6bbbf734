import re

import pytest
import yaml

from espnet_mlma.compare import published
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES


def value(figures, system, source, lang, corpus, metric="wer"):
    wanted = (system, source, lang, corpus, metric)
    [found] = [f for f in figures if (f.system, f.source, f.lang, f.corpus, f.metric) == wanted]
    return found


def test_the_papers_figures_are_there():
    figures = published.load().figures
    expected = {
        ("mlma-conmamba-ls960", "mlma-table-3", "en", "ls-other"): 10.50,
        ("mlma-conformer-3334h", "mlma-table-4", "it", "vp"): 23.7,
        ("mlma-conmamba-11840h", "mlma-table-5", "nl", "fl"): 27.9,
        ("mlma-conmamba-42m", "mlma-table-6", "en", "cv"): 21.04,
        ("mlma-conmamba-710h", "mlma-table-7", "en", "cv"): 56.5,
        ("owsm-v3.1-medium", "owsm-v3.1", "nl", "mls"): 18.1,
        ("owsm-ctc-v4", "owsm-v4-fleurs", "fr", "fl"): 9.67,
        ("zipformer-cr-ctc-64m", "icefall", "en", "ls-clean"): 2.12,
    }
    assert {key: value(figures, *key).value for key in expected} == expected


def test_the_papers_averages_are_those_of_its_rows():
    """Table 5 is consistent with itself to the digit it prints, so it was copied without a slip."""
    figures = [f for f in published.load().figures if f.source == "mlma-table-5"]
    for lang in LANGUAGES:
        system = "mlma-conmamba-11840h"
        row = [f.value for f in figures if (f.system, f.lang, f.metric) == (system, lang, "wer")]
        average = value(figures, system, "mlma-table-5", lang, "any", "mean_wer").value
        assert sum(row) / len(row) == pytest.approx(average, abs=0.1)


def test_figures_carry_their_caveats():
    figures = published.load().figures
    for figure in figures:
        is_owsm = figure.system.startswith("owsm")
        assert ("cv-leak" in figure.caveats) == (is_owsm and figure.corpus == "cv")
        assert ("second-hand" in figure.caveats) == figure.second_hand
        if figure.corpus == "fl" and figure.metric == "wer":
            assert ("fleurs-seen" if is_owsm else "unseen") in figure.caveats
    quoted = value(figures, "whisper-large-v3", "mlma-table-4", "it", "mls")
    assert quoted.second_hand


def test_all_that_is_described_is_used():
    quoted = published.load()
    sources = {figure.source for figure in quoted.figures}
    sources |= {system.source for system in quoted.systems.values() if system.source}
    assert sources == set(quoted.sources)
    assert {figure.system for figure in quoted.figures} == set(quoted.systems)


def test_systems_are_chosen_by_names_and_their_beginnings():
    quoted = published.load()

    def chosen(*names):
        return {figure.system for figure in quoted.choose(names)}

    assert chosen("fama") == {"fama"}
    assert chosen("owsm-ctc-v3.1", "fama") == {"owsm-ctc-v3.1", "fama"}
    assert "owsm-v3.1-medium" not in chosen("owsm-ctc") < chosen("owsm")
    with pytest.raises(MlmaError, match="no published system is 'owsm-c'; .* owsm-ctc-v4 "):
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
        (changed("figures", 0, "source", "web"), "source 'web' is not under sources"),
        (changed("figures", 0, "system", "two"), "entry 1 (two): this system is not under systems"),
        (changed("figures", 0, "metric", "bleu"), "metric 'bleu'; there are wer"),
        (changed("figures", 0, "metric", None), "metric is missing"),
        (changed("figures", 0, "caveats", ["leak"]), "caveat 'leak' is not under caveats"),
        (changed("figures", 0, "value", 2), "'value' is unknown; there are caveats"),
        (changed("figures", 0, "values", {"en": {"ls": "1,5"}}), "en ls: '1,5' is not a number"),
        (changed("figures", 0, "values", {"en": {"ls": True}}), "en ls: True is not a number"),
        (changed("systems", "one", "source", None), "systems: one: numbers without a source"),
        (changed("systems", "one", "parameters", "1B"), "parameters: '1B' is not a number"),
        ({"figures": []}, "needs caveats, sources, systems and figures"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_entry(tmp_path, contents, message):
    path = tmp_path / "figures.yaml"
    path.write_text(yaml.safe_dump(contents))
    with pytest.raises(MlmaError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        published.load(path)


def test_the_good_one_is_good(tmp_path):
    path = tmp_path / "figures.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    [figure] = published.load(path).figures
    assert (figure.value, figure.second_hand, figure.caveats) == (1.5, False, ())
    path.write_text("figures: [")
    with pytest.raises(MlmaError, match="not a readable YAML file"):
        published.load(path)
