"""Which of the pretend models are loaded; and the work that loads them."""

from __future__ import annotations

from services.fake_ollama.core.answering import Answer, answer_chat
from services.fake_ollama.core.catalogue import Catalogue, PretendModel
from services.fake_ollama.core.embedding import embed, normalize, tokenize, truncate
from shared.errors import Invalid
from shared.wire.fake_ollama import ChatBody, EmbedBody, GenerateBody, Message, ScriptRule

TOO_LONG = "the input length exceeds the context length"


class Models:
    """Answers native requests and remembers what is in memory."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._loaded: dict[str, PretendModel] = {}

    @property
    def running(self) -> list[PretendModel]:
        """Loaded models."""
        return list(self._loaded.values())

    def chat(self, body: ChatBody, rule: ScriptRule) -> Answer | str:
        """The answer, or `load` or `unload` when there was nothing to answer."""
        model = self.catalogue.find_able(body.model, "completion", "chat")
        if body.tools:
            self.catalogue.check_tools(model)
        think = self._may_think(model, body.model, body.think)
        if not body.messages:
            return self._move(model, body.keep_alive)
        self._move(model, body.keep_alive)
        return answer_chat(
            body.messages,
            tools=body.tools or (),
            output_format=body.format or None,
            options=body.options,
            think=think,
            rule=rule,
        )

    def generate(self, body: GenerateBody, rule: ScriptRule) -> Answer | str:
        """The same for one prompt."""
        model = self.catalogue.find_able(body.model, "completion", "generate")
        if body.raw and (body.template or body.system or body.context):
            raise Invalid("raw mode does not support template, system, or context")
        think = self._may_think(model, body.model, body.think)
        if not body.prompt:
            return self._move(model, body.keep_alive)
        self._move(model, body.keep_alive)
        messages = [Message(role="user", content=body.prompt)]
        if body.system:
            messages.insert(0, Message(role="system", content=body.system))
        return answer_chat(
            messages,
            output_format=body.format or None,
            options=body.options,
            think=think,
            rule=rule,
        )

    def embed(self, body: EmbedBody, rule: ScriptRule) -> tuple[list[list[float]], int]:
        """Unit vectors and the tokens read. An empty string alone is no input."""
        model = self.catalogue.find(body.model)
        texts = _read_input(body.input)
        self._move(model, body.keep_alive)
        limit = self._context(model, body.options)
        vectors: list[list[float]] = []
        tokens = 0
        for text in texts:
            count = len(tokenize(text))
            if count > limit:
                if body.truncate is False:
                    raise Invalid(TOO_LONG)
                text, count = truncate(text, limit), limit
            tokens += count
            vector = normalize(embed(text, model.embedding_length))
            if body.dimensions and 0 < body.dimensions < len(vector):
                vector = normalize(vector[: body.dimensions])
            vectors.append(vector)
        return (vectors if rule.embeddings is None else rule.embeddings), tokens

    def embed_old(self, name: str, prompt: str) -> list[float]:
        """A vector as the model made it, not normalised; nothing for no text."""
        model = self.catalogue.find(name)
        self._move(model, None)
        return embed(prompt, model.embedding_length) if prompt else []

    def _may_think(self, model: PretendModel, name: str, think: bool | str | None) -> bool:
        able = "thinking" in model.capabilities
        if think and not able:
            raise Invalid(f'"{name}" does not support thinking')
        # Models that can think do so unless they are told not to.
        return able and think is not False

    def _move(self, model: PretendModel, keep_alive: float | str | None) -> str:
        if keep_alive in (0, "0", "0s"):
            self._loaded.pop(model.name, None)
            return "unload"
        self._loaded[model.name] = model
        return "load"

    def _context(self, model: PretendModel, options: dict[str, object] | None) -> int:
        asked = (options or {}).get("num_ctx")
        if isinstance(asked, int) and 0 < asked < model.context_length:
            return asked
        return model.context_length


def _read_input(given: object) -> list[str]:
    if given is None or given == "":
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return [*given]
    raise Invalid("invalid input type")
