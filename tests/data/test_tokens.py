from pathlib import Path

import pytest
import sentencepiece
from espnet2.text.build_tokenizer import build_tokenizer

from espnet_mlma.data.tokens import characters, pieces, read_transcripts, train_bpe, write_tokens
from espnet_mlma.decode.words import text_of
from espnet_mlma.errors import MlmaError

TEXTS = [
    "il sole è bello",
    "das wetter ist schön",
    "l'été est là",
    "el niño está aquí",
    "the sun is out",
] * 8


def test_characters_are_sorted_by_frequency() -> None:
    assert characters(["b a", "c b"]) == ["<space>", "b", "a", "c"]


def test_the_token_list_has_espnets_order(tmp_path: Path) -> None:
    count = write_tokens(tmp_path / "char", TEXTS, "char", 0, "unigram")
    tokens = (tmp_path / "char" / "tokens.txt").read_text().splitlines()
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    assert len(tokens) == len(set(tokens)) == count
    assert set("".join(TEXTS)) - {" "} < set(tokens)


def test_espnets_tokenisers_keep_language_tokens(tmp_path: Path) -> None:
    languages = ["it", "de", "fr", "es", "en"] * 8
    texts = [f"<{lang}> {text}" for lang, text in zip(languages, TEXTS, strict=True)]
    for token_type, size in (("char", 0), ("bpe", 40)):
        folder = tmp_path / token_type
        write_tokens(folder, texts, token_type, size, "unigram")
        symbols = (folder / "nlsyms.txt").read_text().split()
        assert symbols == ["<de>", "<en>", "<es>", "<fr>", "<it>"]
        tokens = (folder / "tokens.txt").read_text().splitlines()
        assert tokens[2:7] == symbols and len(tokens) == len(set(tokens))
        nlsyms = {"non_linguistic_symbols": symbols} if token_type == "char" else {}
        tokeniser = build_tokenizer(token_type, bpemodel=folder / "bpe.model", **nlsyms)
        written = [token for token in tokeniser.text2tokens(texts[0]) if token in tokens]
        assert "<it>" in written[:2] and not set("<>") & set(written)
        assert text_of(written[written.index("<it>") + 1 :], token_type) == TEXTS[0]
    write_tokens(tmp_path / "char", TEXTS, "char", 0, "unigram")
    assert not (tmp_path / "char" / "nlsyms.txt").exists()


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_pieces_cover_the_text(tmp_path: Path, mode: str) -> None:
    write_tokens(tmp_path / "bpe", TEXTS, "bpe", 34, mode)
    tokens = (tmp_path / "bpe" / "tokens.txt").read_text().splitlines()
    assert len(tokens) == 34  # <unk> and <sos/eos> replace SentencePiece's <unk> <s> </s>
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "bpe" / "bpe.model"))
    for text in TEXTS[:5]:
        cut = model.encode(text, out_type=str)
        assert set(cut) <= set(tokens[2:-1])
        assert model.decode(cut) == text


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_the_error_about_too_many_pieces_has_the_largest_size(mode: str) -> None:
    with pytest.raises(MlmaError, match=r"--nbpe 5000 .*: the text allows at most \d+") as error:
        train_bpe(TEXTS, 5000, mode)
    largest = int(str(error.value).split("at most ")[1].split(";")[0])
    assert len(pieces(train_bpe(TEXTS, largest, mode))) == largest - 3


def test_the_error_about_too_few_pieces_has_the_smallest_size() -> None:
    with pytest.raises(MlmaError, match=r"--nbpe 5 .*need at least \d+"):
        train_bpe(TEXTS, 5, "unigram")


def test_an_impossible_size_keeps_the_old_list(tmp_path: Path) -> None:
    write_tokens(tmp_path / "bpe", TEXTS, "bpe", 34, "bpe")
    with pytest.raises(MlmaError):
        write_tokens(tmp_path / "bpe", TEXTS, "bpe", 5000, "bpe")
    assert len((tmp_path / "bpe" / "tokens.txt").read_text().splitlines()) == 34


def test_files_without_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\nb\n")
    with pytest.raises(MlmaError, match="all texts are empty"):
        read_transcripts([tmp_path / "text"])
