# g1p: an index is the same after its daemon was restarted.
source "$(dirname "$0")/lib.sh"
NAME=smoke-g1p-$RUN
JSON='Content-Type: application/json'

call POST /v1/vectors/indexes -H "$JSON" -d "{\"name\": \"$NAME\", \"dim\": 8}"
expect 201
"$ROOT/.venv/bin/python" - >"$WORK/items.json" <<'PY'
import json, random
chance = random.Random(1)
items = [{"id": str(n), "vector": [chance.gauss(0, 1) for _ in range(8)], "text": f"worker {n}",
          "metadata": {"n": n}} for n in range(300)]
print(json.dumps({"items": items}))
PY
call PUT "/v1/vectors/indexes/$NAME/items" -H "$JSON" --data-binary @"$WORK/items.json"
expect 200
call DELETE "/v1/vectors/indexes/$NAME/items" -H "$JSON" -d '{"ids": ["7", "8"]}'
expect 200

ask() {
    call POST "/v1/vectors/indexes/$NAME/search" -H "$JSON" -d '{"queries": [
        {"vector": [1, 2, 3, 4, 5, 6, 7, 8], "k": 20}, {"text": "worker 42", "k": 3},
        {"vector": [1, 0, 0, 0, 0, 0, 0, 1], "k": 20, "filter": {"n": {"lt": 30}}}]}'
}
ask
expect 200
cp "$BODY" "$WORK/before"

"$ROOT/.venv/bin/python" "$ROOT/scripts/fleet.py" restart vectord >"$WORK/restart" 2>&1 ||
    fail "vectord did not restart: $(tail -n 3 "$WORK/restart")"
for _ in $(seq 100); do
    call GET "/v1/vectors/indexes/$NAME"
    [ "$STATUS" = 200 ] && [ "$(json 'it["status"]')" = ready ] && break
    sleep 0.1
done
expect 200 "the index after the restart"
same 'it["count"]' 298
ask
expect 200
cmp -s "$BODY" "$WORK/before" || fail "the hits after the restart are others"
call DELETE "/v1/vectors/indexes/$NAME"
expect 200

pass "the same hits, to the last digit, after a restart"
