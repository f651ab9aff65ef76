"""How a query is put, whatever it is about.

Requests for people, titles of occupations, questions to a forum and orders to an assistant
differ in their form, and so does what answers them. The language of the question words is
English; in another one those two features stay silent.
"""

from __future__ import annotations

import math
import re

import numpy as np

from services.matrixd.core.cold import Floats

_WORD = re.compile(r"\w+")
_ASKS = re.compile(r"(how|what|why|can|is|are|do|does|where|when|who|which|could|should|will)\b")
_SPEAKS = re.compile(r"\b(i|me|my|we|us|our)\b")
# What is usual of each feature, and what it varies by, over queries of four collections.
_USUAL = np.array([1.8, 5.0, 0.2, 0.3, 0.1, 0.05, 0.15, 0.3, 0.3, 0.15])
_VARIES = np.array([0.7, 1.5, 0.4, 0.45, 0.3, 0.2, 0.35, 0.45, 0.45, 0.35])


def describe_form(query: str) -> Floats:
    """Ten figures near 0, each varying by about 1."""
    text = query.strip()
    lower = text.lower()
    words = _WORD.findall(text) or [""]
    told = [
        math.log(len(words)),
        sum(map(len, words)) / len(words),
        float("?" in text),
        float(text[:1].isupper()),
        float("," in text),
        float(any(each.isdigit() for each in text)),
        float("." in text),
        float(_ASKS.match(lower) is not None),
        float(_SPEAKS.search(lower) is not None),
        float(any(each in text for each in "/()-")),
    ]
    return (np.array(told) - _USUAL) / _VARIES
