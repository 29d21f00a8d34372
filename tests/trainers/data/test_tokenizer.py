"""What a tokenizer drops of texts: texts that it reads alike are equal for the model."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainers.data.tokenizer import reading


def of_bytes(normalizer=None):
    """A tokenizer of single bytes, as GPT-2's without its merges."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_tokenizer_that_drops_nothing_has_no_reading():
    assert reading(of_bytes()) is None


def test_what_a_normalizer_drops_is_dropped_and_spaces_stay_where_they_are_tokens():
    read = reading(of_bytes(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])))
    assert read("\uff21  Cafe\u0301") == "a  caf\u00e9"


def test_spaces_after_a_space_are_dropped_where_they_are_no_tokens():
    unknown = {"unk_token": "?"}
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, **unknown))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert reading(PreTrainedTokenizerFast(tokenizer_object=words, **unknown))(" A   b ") == "A b"
