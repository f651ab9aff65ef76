# downgrade: a strong model is asked without composed context, unless forced or listed as weak.
source "$(dirname "$0")/lib.sh"
JSON='Content-Type: application/json'
gate() { call POST /v1/matrix/downgrade -H "$JSON" -d "$1"; }

gate '{"mode": "composed", "model": "tier/frontier_review"}'
expect 200
same '[it["mode"], it["downgraded"]]' '["isolated", true]'
gate '{"mode": "composed", "model": "tier/frontier_review", "force": true}'
same '[it["mode"], it["downgraded"]]' '["composed", false]'
gate '{"mode": "composed", "model": "tier/local_fast"}'
same '[it["mode"], it["downgraded"]]' '["composed", false]'
gate '{"mode": "isolated", "model": "any/model"}'
same '[it["mode"], it["downgraded"]]' '["isolated", false]'
gate '{"mode": "mixed", "model": "any/model"}'
expect 400 "an unknown mode"
gate '{"mode": "composed", "model": "tier/none"}'
expect 400 "an unknown tier"

pass "strong models downgraded, forced and weak ones left, each with a reason"
