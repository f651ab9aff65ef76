"""The official `openai` SDK's embeddings call, against embedd on a real port."""

from __future__ import annotations

import importlib
import math
from collections.abc import Generator

import openai
import pytest

from services.embedd.app import create_app
from shared.daemons import is_built
from tests.support.apps import make_config
from tests.support.listening import listening

# Against its own port, and through the edge that users speak to wherever that is built.
EDGES = ["embedd", *(["gateway"] if is_built("gateway") else [])]


@pytest.fixture(scope="module", params=EDGES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    folder = tmp_path_factory.mktemp("embedd")
    auth = {"token": "a-token"}
    with listening(create_app(make_config(folder, auth=auth))) as address:
        if request.param == "embedd":
            yield f"{address}/v1"
            return
        gateway = importlib.import_module("services.gateway.app")
        config = make_config(folder, auth=auth, embedd={"url": address})
        with listening(gateway.create_app(config)) as edge:
            yield f"{edge}/v1"


@pytest.fixture
def client(url: str) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="a-token", max_retries=0) as made:
        yield made


def test_the_default_call_and_the_float_call_agree(client: openai.OpenAI) -> None:
    texts = ["a nurse in Oslo", "caring for patients", "forklift driver"]
    # Without encoding_format the SDK asks for base64 and decodes it.
    coded = client.embeddings.create(model="local", input=texts)
    plain = client.embeddings.create(model="local", input=texts, encoding_format="float")
    assert [row.index for row in coded.data] == [0, 1, 2]
    for one, other in zip(coded.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
        assert math.isclose(math.hypot(*one.embedding), 1, rel_tol=1e-5)
    assert coded.model == plain.model
    assert coded.model.startswith("local/all-minilm-l6-v2@")
    assert coded.usage.prompt_tokens == coded.usage.total_tokens > 10
    assert client.embeddings.create(model=coded.model, input=texts[0]).data[0] == coded.data[0]


def test_one_string_and_full_dimensions(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input="one text", dimensions=384)
    assert len(answer.data) == 1
    assert len(answer.data[0].embedding) == 384


def test_errors_are_the_sdks_own_classes(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as absent:
        client.embeddings.create(model="absent", input="a")
    assert absent.value.code == "model_not_found"
    assert absent.value.param == "model"
    for bad in ("", [], [[1, 2]], [1, 2]):
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="local", input=bad)  # type: ignore[arg-type]
        assert refused.value.param == "input"
        assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="not trained to be cut"):
        client.embeddings.create(model="local", input="a", dimensions=64)
    with pytest.raises(openai.InternalServerError) as down:
        client.embeddings.create(model="ollama", input="a")
    assert down.value.status_code == 503
    with (
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.embeddings.create(model="local", input="a")


@pytest.mark.anyio
async def test_the_async_client_with_many_texts(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="a-token", max_retries=0) as client:
        answer = await client.embeddings.create(
            model="local", input=[f"text {i % 20}" for i in range(300)]
        )
        assert [row.index for row in answer.data] == list(range(300))
        assert answer.data[0].embedding == answer.data[20].embedding
