"""Measure the LLM of an endless talk: cost of a turn, cost of eviction, error of rotation.

    python benchmarks/sst_llm.py [--model smollm2] [--turns 60] [--trial] [--json FILE]

Speech is random vectors as large as the model's embeddings, so the output has no meaning. The time
of a turn depends only on its number of tokens, which is shown.
"""

from __future__ import annotations

import time
from statistics import median

import torch
from common import milliseconds, prepare, report, time_together, timed_arguments

from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.grid import CHUNK_SECONDS, CHUNK_VECTORS
from espnet_mlma.sst.llm.cache import SlidingCache, rotate
from espnet_mlma.sst.llm.dialogue import Dialogue
from espnet_mlma.sst.llm.generate import Conversation
from espnet_mlma.sst.llm.model import LanguageModel, load

PROMPT, CLOSING = 20, 2
DTYPES = (torch.float32, torch.bfloat16)
# A model that is there in no time, to see that the script works.
TRIAL = {
    "hidden_size": 64,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
}


def speech(llm: LanguageModel, chunks: int) -> torch.Tensor:
    vectors = torch.randn(CHUNK_VECTORS * chunks, llm.hidden_size, dtype=llm.model.dtype)
    return (vectors * llm.embedding.weight.float().std()).to(llm.device)


def incremental(llm: LanguageModel, args) -> None:
    """A turn's speech on top of what is cached, and on an empty cache."""
    rows = []
    lengths = (100, 500, 1000)
    for cached in lengths:
        new = torch.randn(1, 27, llm.hidden_size, dtype=llm.model.dtype, device=llm.device)
        old = torch.randn(1, cached, llm.hidden_size, dtype=llm.model.dtype, device=llm.device)
        cache = SlidingCache(llm.rotation, PROMPT, CLOSING, 2 * max(lengths))
        feed(llm, old, cache)

        def on_top(new=new, cache=cache, cached=cached) -> None:
            feed(llm, new, cache)
            cache.select(cached, torch.arange(0))

        def from_nothing(old=old, new=new) -> None:
            cache = SlidingCache(llm.rotation, PROMPT, CLOSING, 2 * max(lengths))
            feed(llm, torch.cat([old, new], dim=1), cache)

        spent = time_together({"on top": on_top, "from nothing": from_nothing}, args.repeats)
        ratio = f"{spent['from nothing'] / spent['on top']:.1f}"
        rows.append(
            [cached, milliseconds(spent["on top"]), milliseconds(spent["from nothing"]), ratio]
        )
    report(
        "27 tokens of speech fed to the LLM",
        ["tokens before", "on top of the cache (ms)", "without the cache (ms)", "ratio"],
        rows,
        args,
    )


def feed(llm: LanguageModel, embeddings: torch.Tensor, cache: SlidingCache) -> None:
    with torch.no_grad():
        llm.model(inputs_embeds=embeddings, past_key_values=cache, logits_to_keep=1)


def turns(llm: LanguageModel, args) -> None:
    """Whole turns of a talk long enough that its oldest ones are forgotten."""
    dialogue = Dialogue(llm.tokenizer)
    rows = []
    for beams in (1, 4):
        for multiplier in (1, 2, 3):
            decoding = TurnDecoding(beams=beams, max_tokens=args.max_tokens)
            rows.append(talk_row(llm, dialogue, args, decoding, multiplier))
    header = ["beams, multiplier", "p50 (ms)", "p95 (ms)", "longest (ms)", "tokens a turn"]
    header += ["a token of text (ms)", "of real time", "cache (MiB)"]
    report(f"{args.turns} turns, after the cache is full", header, rows, args)


def talk_row(llm, dialogue, args, decoding: TurnDecoding, multiplier: int) -> list[object]:
    torch.manual_seed(0)
    conversation = Conversation(llm, dialogue, decoding)
    is_full = False
    while not is_full:
        is_full = conversation.translate(speech(llm, multiplier)).evicted > 0
    seconds, tokens = [], 0
    for _ in range(args.turns):
        started = time.perf_counter()
        turn = conversation.translate(speech(llm, multiplier))
        seconds.append(time.perf_counter() - started)
        tokens += len(turn.ids)
    in_order = sorted(seconds)
    return [
        f"{decoding.beams}, {multiplier}",
        milliseconds(median(seconds)),
        milliseconds(in_order[round(0.95 * (len(in_order) - 1))]),
        milliseconds(in_order[-1]),
        f"{tokens / args.turns:.1f}",
        milliseconds(sum(seconds) / max(1, tokens)),
        f"{sum(seconds) / (args.turns * multiplier * CHUNK_SECONDS):.2f}",
        f"{conversation.cache.nbytes / 2**20:.1f}",
    ]


def forgetting(llm: LanguageModel, args) -> None:
    """Turns of 32 tokens with no text: how often some are forgotten, and what that costs."""
    rows = []
    for keep in (args.max_tokens, args.max_tokens // 2):
        cache = SlidingCache(llm.rotation, PROMPT, CLOSING, args.max_tokens, keep)
        fed, ended, forgot = [], [], []
        for _ in range(args.turns + args.max_tokens // 32):
            new = torch.randn(1, 32, llm.hidden_size, dtype=llm.model.dtype, device=llm.device)
            started = time.perf_counter()
            feed(llm, new, cache)
            fed.append(time.perf_counter() - started)
            started = time.perf_counter()
            (forgot if cache.end_turn() else ended).append(time.perf_counter() - started)
        share = sum(forgot) / (sum(fed) + sum(forgot) + sum(ended))
        once = milliseconds(median(forgot)) if forgot else ""
        rows.append([keep, milliseconds(median(fed)), len(forgot), once, f"{100 * share:.1f}"])
    report(
        f"Forgetting, at most {args.max_tokens} tokens, turns of 32",
        ["kept", "speech of a turn (ms)", "times", "once (ms)", "of all time (%)"],
        rows,
        args,
    )


def drift(llm: LanguageModel, args) -> None:
    """Keys moved turn after turn, from where they were written and from where they were last."""
    rows = []
    heads, channels = 2, llm.model.config.head_dim or 64
    for dtype in DTYPES:
        raw = torch.randn(1, heads, 1, channels, dtype=dtype)
        start = 2000
        first = llm.rotation.move(raw, torch.tensor([0]), torch.tensor([start]))
        errors = {}
        in_place, position = first, start
        steps = (10, 100, 1000)
        for step in range(1, max(steps) + 1):
            new = start - step
            in_place = llm.rotation.move(in_place, torch.tensor([position]), torch.tensor([new]))
            position = new
            if step in steps:
                exact = llm.rotation.move(raw.double(), torch.tensor([0]), torch.tensor([new]))
                at_once = rotate(
                    first,
                    *llm.rotation.tables(first, torch.tensor([start]), torch.tensor([new])),
                )
                size = exact.abs().max()
                errors[step] = [
                    f"{((moved - exact).abs().max() / size).item():.1e}"
                    for moved in (at_once, in_place)
                ]
        rows += [[f"{str(dtype)[6:]}, {step}", *pair] for step, pair in errors.items()]
    report(
        "Error of a key, relative, after so many moves by one position",
        ["dtype, moves", "from where it was written", "from where it was last"],
        rows,
        args,
    )


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="as of espnet_mlma.sst.llm.model.load")
    parser.add_argument("--turns", type=int, default=60, help="turns measured")
    parser.add_argument("--repeats", type=int, default=5, help="of what is timed side by side")
    parser.add_argument("--max-tokens", type=int, default=1000, help="of the cache")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--trial", action="store_true", help="a tiny model with random weights, to try the script"
    )
    args = parser.parse_args()
    prepare(args)
    random = TRIAL if args.trial else None
    llm = load(args.model, args.device, getattr(torch, args.dtype), random)
    for measure in (incremental, turns, forgetting, drift):
        measure(llm, args)


if __name__ == "__main__":
    main()
