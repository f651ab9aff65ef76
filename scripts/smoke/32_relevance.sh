# relevance: candidates about something else are dropped with a reason, the others stay.
source "$(dirname "$0")/lib.sh"
JSON='Content-Type: application/json'
BODY_JSON='{"query": "forklift operator for night shifts in a cold store", "candidates": [
    {"id": "w1", "text": "Forklift operator, five years in cold stores, prefers night shifts", "score": 0.71},
    {"id": "w2", "text": "Reach truck and forklift driver, available nights, frozen food warehouse", "score": 0.66},
    {"id": "c1", "text": "Maintenance contract for warehouse refrigeration units, renewed each year", "score": 0.58},
    {"id": "c2", "text": "Invoice for the purchase of two electric pallet trucks", "score": 0.55},
    {"id": "c3", "text": "Night nurse for a geriatric ward, rotating shifts", "score": 0.52}]}'

call POST /v1/matrix/relevance -H "$JSON" -d "$BODY_JSON"
expect 200
same '[c["id"] for c in it["kept"]]' '["w1", "w2"]'
same 'sorted(c["id"] for c in it["dropped"])' '["c1", "c2", "c3"]'
same 'all("topic" in c["reason"] and c["score"] < 0.5 for c in it["dropped"])' true
cp "$BODY" "$WORK/first"
call POST /v1/matrix/relevance -H "$JSON" -d "$BODY_JSON"
cmp -s "$BODY" "$WORK/first" || fail "the same candidates were judged differently"
call POST /v1/matrix/relevance -H "$JSON" -d '{"candidates": []}'
expect 400 "neither query nor focus"

pass "kept what is about the query, dropped the adjacent with a reason each, the same every time"
