"""Who answers: a model behind the gateway's chat, or a stand-in that only reads what it is given.

Both see the composed messages and nothing else. The stand-in gives the first source's words
back: as bad as its context, as good as its context, and the same each time, so that a change
of its answers is a change of what was retrieved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.lift.edge import Edge, EdgeError

STAND_IN = "stand-in"
Message = dict[str, str]
# Words of a source that the stand-in gives back.
LONGEST = 180
_SOURCE = re.compile(r"^\[(\d+)\] .+?/.+?: (.*)$")
_CITED = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and the numbers of the sources that it was made from."""

    text: str
    cited: tuple[int, ...]
    model: str


Answerer = Callable[[Sequence[Message]], Answer]


def read_sources(messages: Sequence[Message]) -> dict[int, str]:
    """The numbered sources in composed messages."""
    found: dict[int, str] = {}
    for message in messages:
        if message["role"] == "system":
            for line in message["content"].splitlines():
                match = _SOURCE.match(line)
                if match:
                    found[int(match[1])] = match[2]
    return found


def leave_out(messages: Sequence[Message], numbers: Sequence[int]) -> list[Message]:
    """The messages without some of their sources, for another attempt."""
    heads = tuple(f"[{number}] " for number in numbers)
    return [
        {
            **message,
            "content": "\n".join(
                line for line in message["content"].splitlines() if not line.startswith(heads)
            ),
        }
        if message["role"] == "system" and heads
        else message
        for message in messages
    ]


def stand_in(messages: Sequence[Message]) -> Answer:
    """The words of the first source."""
    sources = read_sources(messages)
    if not sources:
        return Answer("", (), STAND_IN)
    number = min(sources)
    return Answer(" ".join(sources[number].split()[:LONGEST]), (number,), STAND_IN)


def ask_model(edge: Edge, model: str, most_tokens: int) -> Answerer:
    """Asks a model through the gateway; what it cites in brackets is what it was made from."""

    def answer(messages: Sequence[Message]) -> Answer:
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": most_tokens,
        }
        reply = edge.call("POST", "/v1/chat", json=body).json()
        sources = read_sources(messages)
        cited = dict.fromkeys(int(n) for n in _CITED.findall(reply["content"]))
        text = _CITED.sub("", reply["content"]).strip()
        return Answer(text, tuple(n for n in cited if n in sources), reply["model"])

    return answer


def choose_answerer(edge: Edge, model: str, most_tokens: int) -> tuple[Answerer, str]:
    """Who answers, and why: the model if it does when asked, otherwise the stand-in.

    Args:
        model: a name or tier; "stand-in" for the stand-in; with "auto" the tier local_fast is
            asked, and where it does not answer the stand-in takes its place.

    Raises:
        EdgeError: a model that was asked for by name does not answer.
    """
    if model == STAND_IN:
        return stand_in, "the stand-in, as asked"
    name = "tier/local_fast" if model == "auto" else model
    ask = ask_model(edge, name, most_tokens)
    try:
        said = ask([{"role": "user", "content": "Say yes."}])
    except EdgeError as error:
        if model != "auto":
            raise
        return stand_in, f"the stand-in, because {name} does not answer ({error})"
    return ask, f"{said.model} ({name})"
