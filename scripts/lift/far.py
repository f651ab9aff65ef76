"""Everyday questions that a judged set's documents do not answer."""

from __future__ import annotations

_ASK = (
    "what is the best way to {}",
    "tell me how to {}",
    "is it safe to {}",
    "how long does it take to {}",
    "when should i {}",
    "why would anyone {}",
    "who taught you to {}",
    "what do i need to {}",
)
_DO = (
    "bake a sourdough loaf",
    "photograph the northern lights",
    "teach a parrot to whistle",
    "plant tulips before the frost",
    "peel a mango without a mess",
    "tune an old violin",
    "cross the desert on a camel",
    "catch a trout by hand",
    "build a snow fort",
    "name a newborn kitten",
    "win at chess against my grandfather",
    "watch a meteor shower",
    "knit a scarf for a giraffe",
    "ripen green bananas",
    "swim with dolphins",
    "climb a volcano at dawn",
    "keep bees on a balcony",
    "dance the tango",
    "learn the names of the constellations",
    "brew tea the way they do in kyoto",
    "sail around the cape",
    "ride a horse on the beach",
    "fall asleep during a thunderstorm",
    "see penguins in the wild",
    "make candy apples",
)


def list_far_queries() -> list[str]:
    """The questions, always the same."""
    return [ask.format(what) for what in _DO for ask in _ASK]
