# chatd: one chat through the edge in four protocols, streamed and not, and what it counted.
# The provider `fake` of the shipped configuration names the daemon fake_ollama instead of a
# url, so the story needs no model and no key.
source "$(dirname "$0")/lib.sh"

post() { call POST "$1" -H 'Content-Type: application/json' -d "$2"; }
MESSAGES="\"messages\": [{\"role\": \"user\", \"content\": \"welder $RUN in Oslo\"}]"

call GET /v1/chat/providers
expect 200
same 'it["providers"]["ollama"]' true
same '{"ollama", "ollama_cloud", "openrouter", "opencode", "kimi"} <= set(it["providers"])' true

post /v1/chat "{\"model\": \"fake/fake-chat\", $MESSAGES, \"max_tokens\": 64}"
expect 200 "the house's chat"
same 'it["content"]' "You said: welder $RUN in Oslo"
same '[it["provider"], it["finish_reason"]]' '["fake", "stop"]'
same 'it["usage"]["prompt_tokens"] > 0 < it["usage"]["completion_tokens"]' true
same 'it["latency_ms"] > 0' true

post /v1/chat "{\"model\": \"fake/fake-chat\", $MESSAGES, \"max_tokens\": 2}"
same 'it["finish_reason"]' length

post /v1/chat/completions "{\"model\": \"fake/fake-chat\", $MESSAGES}"
expect 200 "OpenAI's"
same 'it["choices"][0]["message"]["content"]' "You said: welder $RUN in Oslo"
post /v1/chat/completions "{\"model\": \"fake/fake-chat\", $MESSAGES, \"stream\": true}"
expect 200 "OpenAI's, streamed"
[ "$(tail -n 2 "$BODY" | head -n 1)" = "data: [DONE]" ] || fail "the stream does not end in [DONE]"

TOOL='"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]'
post /v1/chat/completions "{\"model\": \"fake/fake-chat\", \"messages\": [{\"role\": \"user\", \"content\": \"please get weather for Oslo\"}], $TOOL}"
expect 200 "a tool"
same 'it["choices"][0]["finish_reason"]' tool_calls
same 'it["choices"][0]["message"]["tool_calls"][0]["function"]["name"]' get_weather

post /v1/messages "{\"model\": \"fake/fake-chat\", \"max_tokens\": 64, $MESSAGES}"
expect 200 "Anthropic's"
same '[it["content"][0]["text"], it["stop_reason"]]' "[\"You said: welder $RUN in Oslo\", \"end_turn\"]"
post /v1/responses "{\"model\": \"fake/fake-chat\", \"input\": \"welder $RUN in Oslo\"}"
expect 200 "OpenAI's responses"
same 'it["output"][0]["content"][0]["text"]' "You said: welder $RUN in Oslo"

post /v1/chat/completions "{\"model\": \"fake/absent\", $MESSAGES}"
expect 404 "a model that there is not"
same 'it["error"]["code"]' model_not_found
call GET /v1/chat/providers
KIMI=$(json 'it["providers"]["kimi"]')
if [ "$KIMI" = false ]; then
    post /v1/chat "{\"model\": \"kimi/any\", $MESSAGES}"
    expect 404 "a provider without its key"
    same '"kimi.env" in it["error"]["message"]' true
fi
call GET /v1/models
same '{"tier/local_fast", "fake/fake-chat:latest"} <= {m["id"] for m in it["data"]}' true
call GET "/v1/chat/providers?probe=1"
same 'it["details"]["fake"]["status"]' ok
call GET /v1/chat/usage
same '[row["calls"] > 0 for row in it["rows"] if row["provider"] == "fake" and row["model"] == "fake-chat"]' '[true]'

pass "one edge, four protocols: chat, stream, tools, errors, tiers, usage"
