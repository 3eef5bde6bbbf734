from pathlib import Path

import pytest
import sentencepiece

S2T_SYMBOLS = ["<na>", "<nolang>", "<deu>", "<eng>", "<fra>", "<ita>", "<nld>", "<spa>", "<yue>"]
S2T_SYMBOLS += ["<asr>", "<st_eng>", "<notimestamps>", "<0.00>", "<0.02>", "<30.00>"]


@pytest.fixture(scope="session")
def s2t_experiment(make_experiment, tmp_path_factory) -> Path:
    """A tiny S2T-CTC model with the symbols, the window and the input layer of OWSM-CTC."""
    from espnet2.tasks.s2t_ctc import S2TTask

    prefix = tmp_path_factory.mktemp("bpe") / "bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["what we read is in a book", "the book is red", "a cat and a hat"]),
        model_prefix=str(prefix),
        vocab_size=len(S2T_SYMBOLS) + 40,
        user_defined_symbols=S2T_SYMBOLS,
        bos_id=-1,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = Path(f"{prefix}.vocab").read_text().splitlines()
    pieces = [line.split("\t")[0] for line in pieces]
    return make_experiment(
        S2TTask,
        encoder="e_branchformer_ctc",
        encoder_conf={
            "output_size": 16,
            "attention_heads": 2,
            "attention_layer_type": "selfattn",
            "pos_enc_layer_type": "abs_pos",
            "linear_units": 16,
            "cgmlp_linear_units": 16,
            "num_blocks": 3,
            "use_ffn": True,
            "macaron_ffn": True,
            "interctc_layer_idx": [1],
            "interctc_use_conditioning": True,
            "use_cross_attention": [False, True, False],
            "use_flash_attn": True,
        },
        promptencoder_conf={
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
        },
        model_conf={"interctc_weight": 0.5, "ctc_asr_only": [True, False]},
        preprocessor_conf={"speech_length": 30, "nolang_symbol": "<nolang>"},
        frontend_conf={"fs": "16k", "n_fft": 512, "win_length": 400, "hop_length": 160},
        token_list=["<blank>", *pieces, "<sop>", "<sos>", "<eos>"],
        token_type="bpe",
        bpemodel=f"{prefix}.model",
    )
