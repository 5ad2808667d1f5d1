"""The small model's tokenizer: a byte-level BPE over the texts of our own scenes.

Digits stand alone. The benchmark's fixed phrases are one token each, so that a question costs about
as many tokens as it has words of its own. Training is deterministic and takes well under a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from spatial_ttt.errors import ConfigError

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SHORTEST_PHRASE = 12  # characters; shorter ones are left to the merges
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, phrases: Iterable[str] | None = None
) -> Any:
    """A `PreTrainedTokenizerFast` of at most `vocab_size` tokens, phrases and special tokens included."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fixed = sorted(set(question_phrases() if phrases is None else phrases))
    room = vocab_size - len(fixed)
    if room < 256 + len(SPECIAL_TOKENS):
        raise ConfigError(
            f"vocab_size {vocab_size} leaves {room} tokens beside {len(fixed)} phrases; bytes and special "
            f"tokens alone need {256 + len(SPECIAL_TOKENS)}"
        )
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sorted_counts(texts), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in fixed])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _sorted_counts(texts: Iterable[str]) -> Iterator[str]:
    """The texts in a fixed order: equal counts of pairs are broken alike on every machine."""
    yield from sorted(texts)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer saved beside a model."""
    from transformers import PreTrainedTokenizerFast

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no tokenizer.json; give a folder that a model was saved to"
        )
    return PreTrainedTokenizerFast.from_pretrained(folder)


def token_ids(tokenizer: Any) -> dict[str, int]:
    """The ids a model's configuration needs, by its field names."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {field: int(tokenizer.convert_tokens_to_ids(token)) for field, token in names.items()}


@cache
def question_phrases() -> tuple[str, ...]:
    """The fixed parts of the benchmark's templates and of the prompt around them."""
    from spatial_ttt.eval.profiles import load_profile
    from spatial_ttt.scenes.questions import templates as t

    gap = "\0"
    kinds = ("easy", "medium", "hard")
    asked = [
        t.ask_count(gap),
        t.ask_distance(gap, gap),
        t.ask_size(gap),
        t.ask_room_size(),
        t.ask_nearest((gap, gap), gap, True),
        *(t.ask_direction(f"object_rel_direction_{kind}", gap, gap, gap) for kind in kinds),
        t.ask_appearance((gap, gap)),
        t.ask_route(gap, gap, gap, (gap,)),
        t.ask_recall(gap),
        t.ask_stream_count(gap),
    ]
    profile = load_profile("paper")
    parts = [part for text in asked for part in text.split(gap)]
    parts += (
        t.MULTIPLE_NOTE,
        t.BLANK,
        " Go forward until the",
        ". You have reached the final destination.",
    )
    for template in (profile.number, profile.choice):
        parts += template.replace("{question}", gap).replace("{options}", gap).split(gap)
    # A name keeps the blank before it, as in running text: " chair".
    return tuple(sorted({p.rstrip(" ") for p in parts if len(p) >= SHORTEST_PHRASE}))


def default_texts(extra: Iterable[str] = ()) -> list[str]:
    """What the small tokenizer is trained on: names, numbers, times, answers and `extra` texts."""
    from spatial_ttt.scenes import catalogue
    from spatial_ttt.scenes.rules import DIRECTIONS

    names = list(catalogue.KINDS)
    words = [
        f"the {name}, a {name}, {name}s. {name}\n({name}, the {name}), or {name}" for name in names
    ]
    options = [f"Options:\n{letter}. {name}" for letter in "ABCDEFGH" for name in names]
    sides = [
        f"\n{letter}. {side}" for letter in "ABCD" for d in DIRECTIONS.values() for _, side in d
    ]
    times = [f"<{n / 4:.1f} seconds>user\nassistant\n" for n in range(200)]
    turns = [
        f"{start} Turn {side}, Turn {side}"
        for start in "ABCD"
        for side in ("Left", "Right", "Back")
    ]
    dense = [
        "What is in view at 2 seconds? nothing",
        "When is the first seen?",
        "Where is the, seen from the start? right, ahead",
        "Where is the, seen from the start? left, behind",
        "Go forward until the. You want to navigate to the",
    ] * 50
    joints = [
        "How many and the of to is in (s)? , and the , which of these objects, is the it"
    ] * 50
    return words * 8 + options + sides + times + turns + dense + joints + list(extra)
