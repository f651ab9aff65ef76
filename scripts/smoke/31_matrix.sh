# matrix: two corpora are built from a table, searched as one, kept up to date, and deleted.
source "$(dirname "$0")/lib.sh"
TABLE=smoke_matrix_$RUN
A=smoke-workers-$RUN
B=smoke-rules-$RUN
JSON='Content-Type: application/json'

call POST "/v1/ingest?dataset=$TABLE&mode=replace" -H 'Content-Type: text/csv' --data-binary $'id,role,city,note\n1,Forklift Operator,Chicago,moves pallets in a cold store\n2,Registered Nurse,Aurora,wound care on the night ward\n3,Line Cook,Joliet,grill and prep\n4,Welder,Newark,MIG and TIG on aluminium\n'
expect 200
SPEC="{\"name\": \"$A\", \"source\": {\"dataset\": \"$TABLE\"}, \"id\": \"id\", \"text\": \"{role} in {city}: {note}\", \"metadata\": [\"city\"]}"
call POST "/v1/matrix/corpora?wait=50" -H "$JSON" -d "$SPEC"
expect 201
same '[it["status"], it["documents"], it["calibrated"]]' '["ready", 4, true]'
call POST /v1/matrix/corpora -H "$JSON" -d "$SPEC"
expect 200 "the same again"
call POST /v1/matrix/corpora -H "$JSON" -d "${SPEC/\{note\}/\{nota\}}"
expect 409 "another text under the same name"
call POST /v1/matrix/corpora -H "$JSON" -d "{\"name\": \"$B\", \"source\": {\"dataset\": \"$TABLE\"}, \"id\": \"id\", \"text\": \"{roll}\"}"
expect 400 "an unknown column"
same '"did you mean role" in it["error"]["message"]' true
call POST "/v1/matrix/corpora?wait=50" -H "$JSON" -d "{\"name\": \"$B\", \"source\": {\"sql\": \"select city, 'Overtime in ' || city || ' is paid after forty hours' as rule from $TABLE\"}, \"id\": \"city\", \"text\": \"{rule}\"}"
expect 201

SEARCH='"k": 3, "explain": true'
call POST /v1/matrix/search -H "$JSON" -d "{\"query\": \"someone who drives a pallet truck\", \"corpora\": [\"$A\", \"$B\", \"nobody\"], $SEARCH}"
expect 200
same '[it["hits"][0]["corpus"], it["hits"][0]["id"], it["corpora"]["nobody"]["status"]]' "[\"$A\", \"1\", \"unknown\"]"
call POST /v1/matrix/search -H "$JSON" -d "{\"query\": \"when is overtime paid in Aurora\", \"corpora\": [\"$A\", \"$B\"]}"
same '[it["hits"][0]["corpus"], it["hits"][0]["id"]]' "[\"$B\", \"Aurora\"]"
call POST /v1/matrix/search -H "$JSON" -d "{\"query\": \"worker\", \"corpora\": [\"$A\"], \"filters\": {\"city\": {\"eq\": \"Joliet\"}}}"
same '[h["id"] for h in it["hits"]]' '["3"]'
call POST /v1/matrix/compose -H "$JSON" -d "{\"query\": \"who can weld aluminium\", \"model\": \"tier/local_fast\", \"corpora\": [\"$A\"], \"token_budget\": 200}"
expect 200
same '[it["mode"], it["citations"][0]["id"], it["tokens"] <= 200]' '["composed", "4", true]'

call POST "/v1/ingest?dataset=$TABLE&mode=replace" -H 'Content-Type: text/csv' --data-binary $'id,role,city,note\n1,Forklift Operator,Chicago,moves pallets in a cold store\n2,Registered Nurse,Aurora,paediatric ward\n5,Electrician,Boston,panel wiring\n'
expect 200
call POST "/v1/matrix/corpora/$A/refresh?wait=50"
expect 200
same '[it["job"]["done"], it["job"]["unchanged"], it["job"]["deleted"], it["documents"]]' '[2, 1, 2, 3]'

call DELETE "/v1/matrix/corpora/$A"
call DELETE "/v1/matrix/corpora/$B"
expect 200
call POST /v1/matrix/search -H "$JSON" -d "{\"query\": \"x\", \"corpora\": [\"$A\"]}"
expect 404

pass "two corpora built, searched as one, composed with citations, refreshed by what changed"
