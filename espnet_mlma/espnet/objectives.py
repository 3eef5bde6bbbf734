"""A CTC model with consistency and language objectives: ESPnet's `model: mlma_ctc`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.specaug.specaug import SpecAug
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor, nn

from espnet_mlma.text.language import language_of_token


class TwoViews(nn.Module):
    """Apply SpecAugment to two copies of a batch: one time warp for both, separate masks.

    With one warp, frame t of both views is the same speech.

    Args:
        specaug: ESPnet's, with its options.
    """

    def __init__(self, specaug: SpecAug):
        super().__init__()
        self.specaug = specaug

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Augment features (2 * batch, time, bins) with lengths (2 * batch,) in frames."""
        if self.specaug.time_warp is not None:
            half = len(features) // 2
            warped, _ = self.specaug.time_warp(features[:half], lengths[:half])
            features = warped.repeat(2, 1, 1)
        for mask in (self.specaug.freq_mask, self.specaug.time_mask):
            if mask is not None:
                features, lengths = mask(features, lengths)
        return features, lengths


def consistency_loss(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Compute the divergence of two views' posteriors, each with the other as a fixed target.

    Args:
        log_probs: (2 * batch, frames, vocabulary), the second view after the first.
        lengths: frames of each row, (2 * batch,).

    Returns:
        Kullback-Leibler divergence, summed over frames, mean of the rows; nats.

    Source: Yao et al., CR-CTC, arXiv 2410.05101, equation 4.
    """
    log_probs = log_probs.float()
    target = log_probs.detach().roll(len(log_probs) // 2, dims=0)
    divergence = (target.exp() * (target - log_probs)).sum(-1)
    frames = torch.arange(divergence.size(1), device=lengths.device)
    return divergence.masked_fill(frames >= lengths[:, None], 0).sum() / len(log_probs)


class MlmaCTCModel(ESPnetASRModel):
    """Train ESPnet's ASR model with CTC alone, and two optional objectives.

    Args:
        cr_ctc_weight: weight of the consistency between two masked views of each utterance. Above
            0, the encoder computes each utterance twice; 0 trains on one view.
        language_layers: 1-based blocks in `interctc_layer_idx` whose intermediate CTC predicts only
            the language token that begins each text (`--lang_tokens true` of the recipe). With
            `interctc_use_conditioning` the later blocks get this prediction.
        language_in_text: whether the other CTCs also predict the language, before the words.
        espnet: arguments of ESPnetASRModel; `ctc_weight` must be 1.

    Raises:
        ValueError: options contradict each other; the message names them.

    Source: Yao et al., CR-CTC, arXiv 2410.05101; intermediate targets: Sanabria and Metze,
        Hierarchical multitask learning with CTC, SLT 2018.
    """

    def __init__(
        self,
        cr_ctc_weight: float = 0.0,
        language_layers: Sequence[int] = (),
        language_in_text: bool = True,
        **espnet,
    ):
        if espnet.get("ctc_weight") != 1.0:
            raise ValueError(f"mlma_ctc has no decoder: ctc_weight is {espnet.get('ctc_weight')}")
        if espnet.get("aux_ctc"):
            raise ValueError("mlma_ctc takes language_layers in place of aux_ctc")
        super().__init__(**espnet)
        heads = getattr(self.encoder, "interctc_layer_idx", ())
        missing = [layer for layer in language_layers if layer not in heads]
        if missing or (language_layers and not self.interctc_weight):
            raise ValueError(
                f"language_layers {list(language_layers)} must be among the encoder's "
                f"interctc_layer_idx {list(heads)}, and interctc_weight above 0"
            )
        languages = [i for i, token in enumerate(self.token_list) if language_of_token(token)]
        if (language_layers or not language_in_text) and not languages:
            raise ValueError(
                "language_layers and language_in_text: false need language tokens (`<it>`) in "
                "the token list; make it with --lang_tokens true"
            )
        if cr_ctc_weight > 0:
            if not isinstance(self.specaug, SpecAug):
                raise ValueError(
                    "cr_ctc_weight above 0 needs masks, such as `specaug: clip_specaug`"
                )
            self.specaug = TwoViews(self.specaug)
        self.cr_ctc_weight = cr_ctc_weight
        self.language_layers = frozenset(language_layers)
        self.language_in_text = language_in_text
        self.space = self.token_list.index("<space>") if "<space>" in self.token_list else None
        self.languages: Tensor
        self.register_buffer("languages", torch.tensor(languages), persistent=False)

    def forward(
        self, speech: Tensor, speech_lengths: Tensor, text: Tensor, text_lengths: Tensor, **_
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the loss of a batch.

        Args:
            speech: (batch, samples).
            speech_lengths: samples of each utterance, (batch,).
            text: token ids (batch, symbols).
            text_lengths: symbols of each text, (batch,).

        Returns:
            The mean loss of the utterances; values for the log; the number of utterances.
        """
        batch, text = len(speech), text[:, : text_lengths.max()]
        is_twice = self.training and self.cr_ctc_weight > 0
        if is_twice:
            speech, text = speech.repeat(2, 1), text.repeat(2, 1)
            speech_lengths, text_lengths = speech_lengths.repeat(2), text_lengths.repeat(2)
        language_lengths = text_lengths.clamp(max=1)  # a clip without speech has none
        language, text, text_lengths = self._targets(text, text_lengths)
        encoded, lengths = self.encode(speech, speech_lengths)
        encoded, intermediate = encoded if isinstance(encoded, tuple) else (encoded, [])

        loss, cer = self._calc_ctc_loss(encoded, lengths, text, text_lengths)
        stats = {"loss_ctc": loss.detach(), "cer_ctc": cer}
        if not self.training and len(self.languages) and self.language_in_text:
            stats["acc_language"] = self._language_accuracy(encoded, lengths, language)
        losses = []
        for layer, hidden in intermediate if self.interctc_weight else []:
            is_language = layer in self.language_layers
            if is_language:
                target, target_lengths = language, language_lengths
            else:
                target, target_lengths = text, text_lengths
            one, cer = self._calc_ctc_loss(hidden, lengths, target, target_lengths)
            losses.append(one)
            stats[f"loss_interctc_layer{layer}"] = one.detach()
            if not is_language:
                stats[f"cer_interctc_layer{layer}"] = cer
            elif not self.training:
                accuracy = self._language_accuracy(hidden, lengths, language)
                stats[f"acc_language_layer{layer}"] = accuracy
        if losses:
            mean = torch.stack(losses).mean()
            loss = (1 - self.interctc_weight) * loss + self.interctc_weight * mean
        if is_twice:
            assert self.ctc is not None  # ctc_weight is 1
            consistency = consistency_loss(self.ctc.log_softmax(encoded), lengths)
            stats["loss_cr"] = consistency.detach()
            loss = loss + self.cr_ctc_weight * consistency
        stats["loss"] = loss.detach()
        # ESPnet's annotation does not say that a tuple stays one.
        return force_gatherable((loss, stats, batch), loss.device)  # pyright: ignore[reportReturnType]

    def _targets(self, text: Tensor, text_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return language tokens (batch, 1), the target texts and their lengths.

        An empty text has no language, and stays empty.
        """
        if not text.size(1):
            text = text.new_full((len(text), 1), self.ignore_id)
        # SentencePiece may put its word mark before the token, so it is not always first.
        place = torch.isin(text, self.languages).int().argmax(1, keepdim=True)
        language = text.gather(1, place)
        if self.language_in_text:
            return language, text, text_lengths
        symbols, last = torch.arange(text.size(1), device=text.device), text.size(1) - 1
        first = place + 1
        if self.space is not None:
            first += text.gather(1, first.clamp(max=last)) == self.space
        rest = text.gather(1, (symbols + first).clamp(max=last))
        lengths = (text_lengths - first[:, 0]).clamp(min=0)
        # ESPnet counts errors over every symbol that is not padding, and ignores the lengths.
        rest = rest.masked_fill(symbols >= lengths[:, None], self.ignore_id)
        return language, rest[:, : lengths.max()], lengths

    def _language_accuracy(self, hidden: Tensor, lengths: Tensor, language: Tensor) -> Tensor:
        """Return the share of utterances whose most probable language token is `language`."""
        assert self.ctc is not None  # ctc_weight is 1
        log_probs = self.ctc.log_softmax(hidden)[:, :, self.languages]
        frames = torch.arange(hidden.size(1), device=lengths.device)
        padding = (frames >= lengths[:, None])[:, :, None]
        # CTC emits the token in one frame or a few, so each language is scored by its best frame.
        best = log_probs.masked_fill(padding, -torch.inf).amax(1).argmax(1)
        return (self.languages[best] == language[:, 0]).float().mean()
