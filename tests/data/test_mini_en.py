import pytest

from espnet_mlma.data.corpora import mini, mini_en


@pytest.mark.slow
def test_mini_en_is_english_and_larger_than_mini(tmp_path, capsys):
    mini_en.generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["en"]
    texts = {
        split: {u.text for u in mini_en.prepare(tmp_path, "en", split)} for split in mini.SPLITS
    }
    assert len(texts["train"]) == 1200 and len(texts["test"]) == 40
    assert not texts["train"] & (texts["dev"] | texts["test"])
    mini_en.generate(tmp_path)
    assert "complete" in capsys.readouterr().out
