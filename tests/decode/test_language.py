import pytest

from espnet_mlma.decode.language import guess_language
from espnet_mlma.text import LANGUAGES

SENTENCES = {
    "de": "wir haben gestern mit den nachbarn über das wetter gesprochen",
    "en": "yesterday we talked with the neighbours about the weather",
    "es": "ayer hablamos con los vecinos sobre el tiempo que hace",
    "fr": "hier nous avons parlé du temps qu'il fait avec les voisins",
    "it": "ieri abbiamo parlato con i vicini del tempo che fa",
    "nl": "gisteren hebben we met de buren over het weer gesproken",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_is_recognised(language):
    assert guess_language(SENTENCES[language]) == language


@pytest.mark.parametrize("text", ["", "a", "no", "ja ja"])
def test_a_short_text_has_no_guess(text):
    assert guess_language(text) is None
