"""Texts as words, in the two forms that distillation compares."""

from __future__ import annotations

import re
import unicodedata

# An address is one word: pieces of popular hosts are no phrase.
_WORD = re.compile(r"https?://\S*\w|www\.\S*\w|\w+")
_TERM = re.compile(r"[a-z0-9][a-z0-9'+#.-]*[a-z0-9]|[a-z0-9]")
_ENDING = re.compile(r"(ing|ed|es|s)$")
# Words that every answer has, whatever it is about.
COMMON = frozenset(
    "a an the and or of to in on for is are was be it its this that with as by at from i you he "
    "she we they my your me do does did can could would will should how what when where which "
    "who why if not no so but there here have has had any some am than then just also into about "
    "up out get use using used one all more only like want way possible".split()
)
# What contractions leave behind, and the small change of questions.
TURNS = COMMON | frozenset(
    "d ll m re s t ve know need trying tried try please help thanks hi hello make made get got see "
    "think sure work works something anything without after before which these those them their "
    "its our us him her his over only very too more most other another same such each been being "
    "were going go new don doesn isn aren wasn didn possible easy easiest best ways".split()
)


def normalise_words(text: str) -> tuple[str, ...]:
    """Words without case, accents' spelling, punctuation or spacing: what a copy keeps."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_terms(text: str) -> frozenset[str]:
    """Words that carry content, cut to a crude stem (English endings)."""
    found = _TERM.findall(text.lower())
    return frozenset(
        _ENDING.sub("", word) if len(word) > 4 else word for word in found if word not in COMMON
    )
