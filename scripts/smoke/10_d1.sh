# d1: the edge is alive, knows its fleet, and answers what it cannot route clearly.
source "$(dirname "$0")/lib.sh"

call GET /health
expect 200
same 'it["service"]' gateway

call GET /ready
expect 200 "the whole fleet"
same 'all(it["checks"][n] == "ok" for n in ("storaged", "catalogd", "ingestd", "queryd"))' true

call GET /openapi.json
expect 200
same '"/v1/sql" in it["paths"] and "/v1/ingest" in it["paths"]' true

call GET /v1/storage/objects -H 'x-request-id: smoke-d1'
expect 200 "routed to storaged"
[ "$(header x-request-id)" = smoke-d1 ] || fail "the request id did not come back"

call GET /v1/nothing
expect 404
same 'it["error"]["code"]' not_found

call GET /health -H 'Host: elsewhere.example'
expect 421 "a foreign Host"

pass "gateway alive, fleet ready, routes and refusals clear"
