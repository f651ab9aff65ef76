# pathway: traces are added, updated, revised, retired, walked back and found; so are memories.
source "$(dirname "$0")/lib.sh"
JSON='Content-Type: application/json'
TRACES=/v1/pathway/traces
TAG=smoke-$RUN

call POST "$TRACES" -H "$JSON" -d "{\"content\": {\"task\": \"fill the night shift on a hospital ward\", \"outcome\": \"asked nurses nearby first\"}, \"tags\": [\"$TAG\"]}"
expect 201
ID=$(json 'it["id"]')
same '[it["version"], it["status"]]' '[1, "live"]'
call POST "$TRACES" -H "$JSON" -d "{\"content\": {\"task\": \"find a forklift driver\", \"run\": \"$RUN\"}, \"tags\": [\"$TAG\"], \"dedupe\": true}"
expect 201
OTHER=$(json 'it["id"]')
call POST "$TRACES" -H "$JSON" -d "{\"content\": {\"run\": \"$RUN\", \"task\": \"find a forklift driver\"}, \"dedupe\": true}"
expect 200 "the same content again"
same 'it["id"]' "$OTHER"
for _ in 1 2; do
    call POST "$TRACES" -H "$JSON" -H "Idempotency-Key: $TAG" -d '{"content": "sent twice"}'
done
expect 200 "the same key again"
same 'it["duplicate"]' true

call PUT "$TRACES/$ID" -H "$JSON" -H 'If-Match: "1"' -d '{"content": {"task": "fill the night shift on a hospital ward", "outcome": "asked the agency"}}'
expect 200
same 'it["version"]' 2
call PUT "$TRACES/$ID" -H "$JSON" -H 'If-Match: "1"' -d '{"content": {}}'
expect 412 "a stale version"
call POST "$TRACES/$ID/revise" -H "$JSON" -d '{"content": {"task": "fill the night shift on a hospital ward", "outcome": "asked nurses who had worked there"}}'
expect 201
NEW=$(json 'it["id"]')
same 'it["supersedes"]' "$ID"
call POST "$TRACES/$ID/revise" -H "$JSON" -d '{"content": {}}'
expect 409 "revised already"
call POST "$TRACES/$NEW/revise" -H "$JSON" -d "{\"content\": {}, \"id\": \"$ID\"}"
expect 409 "a cycle"

call GET "$TRACES/$NEW/history"
expect 200
same '[e["event"] for e in it["entries"]]' '["revise", "update", "add"]'
same '[it["chain"], it["cycle"]]' "[[\"$NEW\", \"$ID\"], null]"

find() { call POST /v1/pathway/search -H "$JSON" -d "{\"query\": \"$1\", \"k\": 5, \"filter\": {\"tags\": {\"contains\": \"$TAG\"}}, \"explain\": true}"; }
find "staff for caring for patients after dark"
expect 200
same '[it["hits"][0]["id"], it["mode"], it["semantic"]["status"] in ("ok", "partial")]' "[\"$NEW\", \"hybrid\", true]"
same 'abs((lambda h, e: h["score"] - e["semantic_weight"] * max(0, e["cosine"]) - e["lexical_weight"] * e["lexical"])(it["hits"][0], it["hits"][0]["explain"])) < 1e-5' true
call POST "$TRACES/$NEW/retire" -H "$JSON" -d '{"reason": "smoke"}'
expect 200
find "staff for caring for patients after dark"
same "\"$NEW\" in [h[\"id\"] for h in it[\"hits\"]]" false
call GET "$TRACES/$NEW"
same '[it["status"], it["reason"]]' '["retired", "smoke"]'

MEMORIES=/v1/mem0/memories
call POST "$MEMORIES" -H "$JSON" -d "{\"messages\": [{\"role\": \"user\", \"content\": \"I take night shifts only\"}], \"user_id\": \"$TAG\", \"infer\": false}"
expect 200
MEMORY=$(json 'it["results"][0]["id"]')
call PUT "$MEMORIES/$MEMORY" -H "$JSON" -d '{"text": "I take day shifts only"}'
expect 200
call POST /v1/mem0/search -H "$JSON" -d "{\"query\": \"when does she work?\", \"filters\": {\"user_id\": \"$TAG\"}}"
expect 200
same '[m["memory"] for m in it["results"]]' '["I take day shifts only"]'
call DELETE "$MEMORIES/$MEMORY"
expect 200
call GET "$MEMORIES/$MEMORY/history"
same '[row["event"] for row in it]' '["ADD", "UPDATE", "DELETE"]'
call POST /v1/mem0/search -H "$JSON" -d '{"query": "x", "filters": {}}'
expect 400 "nobody's memories"

LIVED=$(date +%s%N)
"$ROOT/.venv/bin/python" "$ROOT/scripts/fleet.py" restart pathwayd >"$WORK/restart" 2>&1 ||
    fail "pathwayd did not restart: $(tail -n 3 "$WORK/restart")"
for _ in $(seq 100); do
    call GET "$TRACES/$OTHER"
    [ "$STATUS" = 200 ] && break
    sleep 0.1
done
same 'it["status"]' live
BACK=$((($(date +%s%N) - LIVED) / 1000000))
call GET /v1/pathway/stats
same 'it["problems"]' '[]'

pass "added once, updated, revised, retired, walked back, found by meaning; memories too; back after a restart in $BACK ms"
