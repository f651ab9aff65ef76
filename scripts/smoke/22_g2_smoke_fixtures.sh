# g2_smoke_fixtures: embeddings over Ollama's protocol with no Ollama, objects with no S3 account.
# The provider `fake` of the shipped configuration names the daemon fake_ollama instead of a
# url, so it finds it on whatever port this fleet gave it.
source "$(dirname "$0")/lib.sh"

embed() { call POST /v1/embed -H 'Content-Type: application/json' -d "$1"; }
embed "{\"texts\": [\"welder $RUN in Oslo\", \"welders $RUN, Oslo\", \"night nurse\"], \"model\": \"fake\"}"
expect 200
same 'it["dim"]' 256
same 'it["model"].startswith("fake/fake-embed:latest@")' true
DOT='(lambda a, b: sum(x * y for x, y in zip(it["vectors"][a], it["vectors"][b])))'
same "$DOT(0, 1) > 0.5 > $DOT(0, 2)" true
MODEL=$(json 'it["model"]')
FIRST=$(json 'it["vectors"][0]')

embed "{\"texts\": [\"welder $RUN in Oslo\"], \"model\": \"$MODEL\"}"
expect 200 "by its id"
same 'it["vectors"][0]' "$FIRST"
embed '{"texts": ["a"], "model": "fake", "dimensions": 16}'
expect 200 "fewer dimensions"
same '[it["dim"], abs(sum(x * x for x in it["vectors"][0]) - 1) < 1e-5]' '[16, true]'
embed '{"texts": ["a"], "model": "fake/absent"}'
expect 404 "a model that it does not have"
same '"fake-embed:latest" in it["error"]["message"]' true

# Whether an Ollama runs on this machine or not: no other model ever answers for it.
embed '{"texts": ["a"], "model": "ollama"}'
case $STATUS in
    200) same 'it["model"].startswith("ollama/")' true ;;
    404 | 503) same '"vectors" in it' false ;;
    *) fail "an answer that is none of 200, 404 and 503" ;;
esac

call PUT "/v1/storage/objects/smoke/$RUN/fixture" --data-binary "local"
expect 201 "objects without an S3 account"
call DELETE "/v1/storage/objects/smoke/$RUN/fixture"
expect 200

pass "Ollama's protocol from fake_ollama, ids with hashes, storage on local files"
