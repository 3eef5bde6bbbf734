"""Stage 5: make the token list of a recogniser, and its BPE model.

The list has ESPnet's order: `<blank>` is 0, `<unk>` is 1 and `<sos/eos>` is last. If the texts
begin with language tokens, as in `text_lang` of stage 4, the list contains these too.

    mlma recipe tokens --text dump/raw/train/text --token_type bpe --nbpe 500 \
        --output data/en_token_list/bpe_unigram500
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.data import tables
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.text.language import language_token, split_language

_MOST_UNKNOWN = 0.01  # share of letters that a model's BPE pieces may lack
BLANK, UNKNOWN, SPACE, SOS_EOS = "<blank>", "<unk>", "<space>", "<sos/eos>"


def read_transcripts(paths: Iterable[Path]) -> list[str]:
    """Read the transcripts of Kaldi-style `text` files; empty ones are skipped.

    Raises:
        MlmaError: a file is missing, or all texts are empty.
    """
    paths = list(paths)
    texts = [text for path in paths for text in tables.read(path, "stage 4").values() if text]
    if not texts:
        raise MlmaError(f"{' '.join(map(str, paths))}: all texts are empty; run stage 4 again")
    return texts


def characters(texts: Iterable[str]) -> list[str]:
    """List the characters of the texts by frequency; the space is `<space>`."""
    counts = Counter(character for text in texts for character in text)
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return [SPACE if character == " " else character for character in ordered]


def train_bpe(texts: Sequence[str], size: int, mode: str, whole: Sequence[str] = ()) -> bytes:
    """Train a SentencePiece model.

    Args:
        texts: normalised transcripts.
        size: number of pieces, with SentencePiece's own three.
        mode: `unigram` or `bpe`.
        whole: symbols that are always pieces and are never split.

    Returns:
        The serialised model.

    Raises:
        MlmaError: the texts have too few different pieces, or too many characters, for the size.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type=mode,
            character_coverage=1.0,
            normalization_rule_name="identity",
            user_defined_symbols=list(whole),
            minloglevel=2,
        )
    except RuntimeError as error:
        too_large = re.search(r"value <= (\d+)", str(error))
        too_small = re.search(r"\d+ vs (\d+)", str(error))
        if too_large:
            bound = f"the text allows at most {too_large[1]}"
        elif too_small:
            bound = f"the characters of the text need at least {too_small[1]}"
        else:
            bound = str(error)
        raise MlmaError(f"--nbpe {size} ({mode}): {bound}; choose another size") from None
    return model.getvalue()


def pieces(model: bytes) -> list[str]:
    """List the pieces of a SentencePiece model without its `<unk> <s> </s>`."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    own = {processor.unk_id(), processor.bos_id(), processor.eos_id()}
    return [processor.IdToPiece(i) for i in range(len(processor)) if i not in own]


def write_tokens(
    out: Path,
    texts: Sequence[str],
    token_type: str,
    size: int,
    mode: str,
    pretrained: Path | None = None,
) -> int:
    """Write a folder with `tokens.txt`, and for BPE `bpe.model`, complete or not at all.

    If texts begin with language tokens, `nlsyms.txt` lists these for ESPnet's character tokeniser.

    Args:
        out: the folder.
        texts: normalised transcripts.
        token_type: `char` or `bpe`.
        size, mode: of BPE, see `train_bpe`.
        pretrained: model whose tokens are extended, see `extended`; None: there is none.

    Returns:
        The number of tokens, with the special ones.

    Raises:
        MlmaError: as in `train_bpe` and `extended`.
    """
    languages, texts = zip(*map(split_language, texts), strict=True)
    whole = [language_token(language) for language in sorted(filter(None, {*languages}))]
    if pretrained is not None:
        return _write(out, *extended(pretrained, texts, whole, token_type), whole)
    if token_type == "bpe":
        model = train_bpe(texts, size, mode, whole)
        written = pieces(model)
    else:
        model, written = b"", [*whole, *characters(texts)]
    return _write(out, [BLANK, UNKNOWN, *written, SOS_EOS], model, whole)


def _write(out: Path, tokens: Sequence[str], model: bytes, whole: Sequence[str]) -> int:
    def fill(new: Path) -> None:
        if model:
            (new / "bpe.model").write_bytes(model)
        if whole:
            (new / "nlsyms.txt").write_text("\n".join(whole) + "\n", encoding="utf-8")
        (new / "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    replace_folder(out, fill)
    return len(tokens)


def extended(
    pretrained: Path, texts: Sequence[str], whole: Sequence[str], token_type: str
) -> tuple[list[str], bytes]:
    """Extend the tokens of a model by the symbols of new texts.

    Args:
        pretrained: folder of `mlma recipe pretrained`, with `tokens.txt` and, for BPE, `bpe.model`.
        texts: normalised transcripts, without language tokens.
        whole: language tokens.
        token_type: `char` or `bpe`.

    Returns:
        The model's tokens in their order, new ones, and `<sos/eos>`; and the BPE model.

    Raises:
        MlmaError: the model has other tokens, or its BPE model cannot write the texts.
    """
    known = files.read_text(pretrained / "tokens.txt", "run stage 5 again").splitlines()
    bpe = pretrained / "bpe.model"
    if bpe.is_file() != (token_type == "bpe"):
        has = "bpe" if bpe.is_file() else "char"
        raise MlmaError(f"{pretrained}: the model has {has} tokens; give --token_type {has}")
    if bpe.is_file():
        return _with_bpe(known, bpe, texts, whole)
    new = [token for token in [*whole, *characters(texts)] if token not in known]
    return [*known[:-1], *new, known[-1]], b""


def _with_bpe(
    known: list[str], bpe: Path, texts: Sequence[str], whole: Sequence[str]
) -> tuple[list[str], bytes]:
    """Check that a BPE model can write texts; its pieces cannot be extended."""
    import sentencepiece

    missing = [token for token in whole if token not in known]
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(bpe.read_bytes())
    letters = Counter("".join(texts))
    unknown = {
        letter: count
        for letter, count in letters.items()
        if processor.unk_id() in processor.EncodeAsIds(letter)
    }
    share = sum(unknown.values()) / max(1, letters.total())
    if missing or share > _MOST_UNKNOWN:
        worst = " ".join(sorted(unknown, key=lambda letter: -unknown[letter])[:10])
        raise MlmaError(
            f"{bpe}: cannot write {100 * share:.1f} % of the letters "
            f"({' '.join([*missing, worst]).strip()}); fine-tune a model with characters"
        )
    return known, bpe.read_bytes()


def main(argv: Sequence[str] | None = None) -> None:
    """Run stage 5 from the command line."""
    parser = ArgumentParser(prog="mlma recipe tokens", description=first_line(__doc__))
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="`<id> <text>` files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--token_type", choices=("char", "bpe"), required=True, help="tokens")
    parser.add_argument("--nbpe", type=int, default=500, help="number of BPE pieces")
    parser.add_argument("--bpemode", choices=("unigram", "bpe"), default="unigram")
    parser.add_argument(
        "--pretrained", type=Path, help="folder of `mlma recipe pretrained`; extend its tokens"
    )
    args = parser.parse_args(argv)
    refuse_to_replace(args.output, filter(None, [*args.text, args.pretrained]))
    texts = read_transcripts(args.text)
    count = write_tokens(
        args.output, texts, args.token_type, args.nbpe, args.bpemode, args.pretrained
    )
    print(f"{args.output / 'tokens.txt'}: {count} tokens from {len(texts)} sentences")
