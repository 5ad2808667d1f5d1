"""The encoder gives the tokenizer's own ids, whatever the words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from spatial_ttt.tokenizer import question_phrases
from spatial_ttt.train import encoder
from spatial_ttt.train.encoder import Encoder
from tests.train import clips

WORDS = st.sampled_from(
    [
        *question_phrases(),
        *(" ", "  ", "\n", "\t", "<|im_end|>", "<|im_start|>", "assistant", " chair", "A. sofa"),
        *("12.5", " 7", "left 0.3,", "it's", " 'turn left,'", "?", "é ", " ü"),
    ]
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.one_of(WORDS, st.text(max_size=6)), max_size=12))
def test_any_text_has_the_tokenizers_ids(parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer = clips.tokenizer().backend_tokenizer
    known = Encoder(tokenizer)
    assert known.is_plain
    wanted = tokenizer.encode(text).ids
    assert known.encode(text) == wanted
    assert known.encode(text) == wanted, "from what is kept, too"


def test_words_are_encoded_once() -> None:
    known = Encoder(clips.tokenizer().backend_tokenizer)
    known.encode("Where is the sofa, seen from the start?")
    before = len(known.pieces)
    known.encode("the sofa, seen from the start? Where")
    assert len(known.pieces) == before + 2, "only 'the' and ' Where' are new"


def test_pieces_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(encoder, "MOST_PIECES", 3)
    known = Encoder(clips.tokenizer().backend_tokenizer)
    for number in range(10):
        text = f"a chair {number}"
        assert known.encode(text) == known.tokenizer.encode(text).ids
        assert len(known.pieces) <= 6


def test_a_tokenizer_of_another_make_is_asked_every_time() -> None:
    plain = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.add_tokens([AddedToken("<end>", normalized=False)])
    known = Encoder(plain)
    assert not known.is_plain
    assert known.encode("a  b<end>") == plain.encode("a  b<end>").ids
    assert not known.pieces
