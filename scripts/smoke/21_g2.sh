# g2: texts become vectors inside the fleet: near for like meaning, the same bits each time.
source "$(dirname "$0")/lib.sh"

embed() { call POST /v1/embed -H 'Content-Type: application/json' -d "$1"; }
embed '{"texts": ["registered nurse in a hospital", "caring for patients on a ward", "forklift driver in a warehouse"], "model": "local"}'
expect 200
same '[it["dim"], len(it["vectors"]), it["truncated"]]' '[384, 3, []]'
DOT='(lambda a, b: sum(x * y for x, y in zip(it["vectors"][a], it["vectors"][b])))'
same "$DOT(0, 1) > $DOT(0, 2) + 0.2" true
same "abs($DOT(0, 0) - 1) < 1e-5" true
MODEL=$(json 'it["model"]')
FIRST=$(json 'it["vectors"][0]')

embed '{"texts": ["something else", "registered nurse in a hospital"], "model": "minilm"}'
expect 200 "by its alias, in other company"
same 'it["model"]' "$MODEL"
same 'it["vectors"][1]' "$FIRST"

call POST /v1/embeddings -H 'Content-Type: application/json' \
    -d '{"input": "registered nurse in a hospital", "model": "local", "encoding_format": "base64"}'
expect 200 "in OpenAI's shape"
same '[it["object"], it["model"], it["data"][0]["index"], it["usage"]["total_tokens"] > 0]' \
    "[\"list\", \"$MODEL\", 0, true]"
FLOAT=$(json '__import__("struct").unpack("<384f", __import__("base64").b64decode(it["data"][0]["embedding"]))[0]')
[ "$(printf '%.6f' "$FLOAT")" = "$(printf '%.6f' "$(tr -d '[,' <<<"${FIRST%%,*}")")" ] ||
    fail "base64 holds other numbers"

call POST /v1/embeddings -H 'Content-Type: application/json' -d '{"input": [1, 2], "model": "local"}'
expect 400 "token arrays"
same 'sorted(it["error"])' '["code", "message", "param", "type"]'

embed '{"texts": ["a"], "model": "no-such-model"}'
expect 404 "an unknown model"
same '"minilm" in it["error"]["message"]' true
embed '{"texts": ["a", ""]}'
expect 400 "an empty text"
same 'it["error"]["details"]["index"]' 1

call GET /v1/embed/models
expect 200
same 'it["default"]' "$MODEL"

pass "local model, like meaning near, same text same bits, OpenAI shape, refusals clear"
