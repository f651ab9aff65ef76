# g1: an index is made, filled, searched by vector, by text, by both and under filters.
source "$(dirname "$0")/lib.sh"
NAME=smoke-g1-$RUN
JSON='Content-Type: application/json'

call POST /v1/vectors/indexes -H "$JSON" -d "{\"name\": \"$NAME\", \"dim\": 3, \"metric\": \"cosine\", \"model\": \"toy\"}"
expect 201
call POST /v1/vectors/indexes -H "$JSON" -d "{\"name\": \"$NAME\", \"dim\": 4, \"model\": \"toy\"}"
expect 409 "another dimension"

call PUT "/v1/vectors/indexes/$NAME/items" -H "$JSON" -d '{"items": [
    {"id": "1", "vector": [1, 0, 0], "text": "forklift operator in Oslo", "metadata": {"city": "Oslo", "rate": 31.5}},
    {"id": "2", "vector": [0.9, 0.1, 0], "text": "welder in Bergen", "metadata": {"city": "Bergen", "rate": 35}},
    {"id": "3", "vector": [0, 1, 0], "text": "night nurse in Oslo", "metadata": {"city": "Oslo", "rate": 40}}]}'
expect 200
same 'it["written"]' 3

SEARCH=/v1/vectors/indexes/$NAME/search
call POST "$SEARCH" -H "$JSON" -d '{"vector": [1, 0, 0], "k": 2}'
expect 200
same '[h["id"] for h in it["hits"]]' '["1", "2"]'
call POST "$SEARCH" -H "$JSON" -d '{"text": "nurse (Oslo", "k": 1}'
expect 200 "text with a stray bracket"
same 'it["hits"][0]["id"]' 3
call POST "$SEARCH" -H "$JSON" -d '{"vector": [1, 0, 0], "filter": {"and": [{"city": {"eq": "Oslo"}}, {"rate": {"gt": 35}}]}}'
expect 200
same '[h["id"] for h in it["hits"]]' '["3"]'
call POST "$SEARCH" -H "$JSON" -d '{"queries": [{"vector": [0, 1, 0], "k": 1}, {"text": "welder", "k": 1}]}'
expect 200 "a batch"
same '[r["hits"][0]["id"] for r in it["results"]]' '["3", "2"]'

call POST "$SEARCH" -H "$JSON" -d '{"vector": [1, 0]}'
expect 400 "a wrong dimension"
call POST "$SEARCH" -H "$JSON" -d '{"vector": [0, 0, 0]}'
expect 400 "a zero vector"
call POST "$SEARCH" -H "$JSON" -d '{"vector": [1, 0, 0], "model": "another"}'
expect 409 "another model"

call DELETE "/v1/vectors/indexes/$NAME/items" -H "$JSON" -d '{"filter": {"city": {"eq": "Oslo"}}}'
expect 200
same '[it["deleted"], it["count"]]' '[2, 1]'
call DELETE "/v1/vectors/indexes/$NAME"
expect 200
call GET "/v1/vectors/indexes/$NAME"
expect 404

pass "made, filled, searched dense, lexical, filtered and batched, refused clearly, deleted"
