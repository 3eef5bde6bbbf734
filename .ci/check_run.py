"""Look at a reduced run of the recipe: the loss fell, every set was scored, the model is packed.

python .ci/check_run.py EXPERIMENT EPOCHS
"""

import re
import sys
import zipfile
from pathlib import Path

LANGUAGES = ("de", "en", "es", "fr", "it", "nl")


def check_loss(log: str, epochs: int) -> None:
    """The training loss of the last epoch is below that of the first."""
    losses = [float(x) for x in re.findall(r"epoch results: \[train\].*? loss=([0-9.]+)", log)]
    print(f"training loss per epoch: {losses}")
    assert len(losses) == epochs, f"{epochs} epochs expected"
    assert losses[-1] < losses[0], "the loss did not fall"


def check_scores(decoding: Path) -> None:
    """Each test set has a result file whose totals are numbers of sentences and words."""
    for lang in LANGUAGES:
        result = decoding / f"test_mini_{lang}" / "score_wer" / "result.txt"
        total = re.search(r"Sum/Avg *\| *(\d+) +(\d+) *\|(.*)\|", result.read_text())
        assert total, f"{result}: no Sum/Avg line"
        error_rate = float(total[3].split()[4])
        print(f"{lang}: {total[1]} sentences, {total[2]} words, WER {error_rate} %")
        assert int(total[1]) > 0 and int(total[2]) > 0 and error_rate >= 0


def main() -> None:
    experiment, epochs = Path(sys.argv[1]), int(sys.argv[2])
    check_loss((experiment / "train.log").read_text(), epochs)
    (decoding,) = (path for path in experiment.iterdir() if path.name.startswith("decode_"))
    check_scores(decoding)
    assert (experiment / "RESULTS.md").read_text().count("mini") >= len(LANGUAGES)
    (packed,) = experiment.glob("*.zip")
    with zipfile.ZipFile(packed) as archive:
        assert "meta.yaml" in archive.namelist()
    print(f"packed: {packed}")


if __name__ == "__main__":
    main()
