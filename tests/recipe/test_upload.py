from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.recipe.upload import upload


def test_a_file_that_is_no_packed_model_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_text("half")
    with pytest.raises(MlmaError, match=r"model\.zip: not a packed model; run stage 14 first"):
        upload(tmp_path / "model.zip", "name/model")
