"""Facts extracted by the chat edge, from the tier that the configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from services.pathwayd.core.facts import FORM, INSTRUCTIONS, make_question, read_facts
from shared.clients.chatd import ChatdClient
from shared.errors import LakehouseError, TooLarge, Unavailable
from shared.wire.pathwayd_mem0 import Message

# A model that gives no list of facts is asked once more.
TRIES = 2


class FactFinder:
    """Asks a model what of a conversation is worth remembering."""

    def __init__(self, client: ChatdClient, model: str) -> None:
        self._client = client
        self._model = model

    async def find(self, messages: Sequence[Message]) -> list[str]:
        """The facts, in order; none is an answer too.

        Raises:
            TooLarge: the conversation is longer than the chat edge takes.
            Unavailable: no model answers, or none of its answers is a list of facts.
        """
        question = make_question([(m.role, m.name, m.content) for m in messages])
        asked = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": question},
        ]
        for _ in range(TRIES):
            try:
                answer = await self._client.chat(
                    self._model, asked, temperature=0, response_format=FORM
                )
            except TooLarge:
                raise TooLarge(
                    f"messages: more than {self._model} can be asked at once; nothing was stored. "
                    "Send them in several requests."
                ) from None
            except LakehouseError as error:
                raise _unable(self._model, error.message) from error
            facts = read_facts(answer.content)
            if facts is not None:
                return facts
        raise _unable(self._model, "its answer is no list of facts.")

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _unable(model: str, why: str) -> Unavailable:
    return Unavailable(
        f"No facts can be extracted by {model}: {why} Nothing was stored. Try again, or send "
        "infer=false to store the messages as they are.",
        details={"infer": True},
    )
