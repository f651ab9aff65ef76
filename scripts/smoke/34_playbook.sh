# playbook: what worked for a query is found first for its paraphrase, and retired without a trace.
source "$(dirname "$0")/lib.sh"
TABLE=smoke_playbook_$RUN
CORPUS=smoke-playbook-$RUN
JSON='Content-Type: application/json'

"$ROOT/.venv/bin/python" - >"$WORK/rows.csv" <<'PYTHON'
roles = ["Forklift Operator", "Reach Truck Driver", "Warehouse Associate", "Registered Nurse",
         "Line Cook", "Welder", "Truck Driver", "Electrician"]
skills = ["cold store", "loading dock", "night shift", "inventory", "shipping labels"]
print("id,role,skill")
for n in range(40):
    print(f"{n},{roles[n % 8]},{skills[n // 8]}")
PYTHON
call POST "/v1/ingest?dataset=$TABLE" -H 'Content-Type: text/csv' --data-binary "@$WORK/rows.csv"
expect 200
call POST "/v1/matrix/corpora?wait=50" -H "$JSON" -d "{\"name\": \"$CORPUS\", \"source\": {\"dataset\": \"$TABLE\"}, \"id\": \"id\", \"text\": \"{role}: {skill}\"}"
expect 201

search() { call POST /v1/matrix/search -H "$JSON" -d "{\"query\": \"$1\", \"corpora\": [\"$CORPUS\"], \"k\": 10, \"use_playbook\": $2, \"explain\": true}"; }
QUERY="someone to move pallets at night"
search "$QUERY" false
expect 200
cp "$BODY" "$WORK/cold"
WANTED=$(json 'it["hits"][7]["id"]')

call POST /v1/matrix/playbook -H "$JSON" -d "{\"query\": \"$QUERY\", \"ratings\": [{\"corpus\": \"$CORPUS\", \"id\": \"$WANTED\", \"rating\": 1}], \"source\": \"human\"}"
expect 201
EPISODE=$(json 'it["episode_id"]')
call POST /v1/matrix/playbook -H "$JSON" -d "{\"query\": \"$QUERY\", \"ratings\": [{\"corpus\": \"$CORPUS\", \"id\": \"$WANTED\", \"rating\": 1}], \"source\": \"human\"}"
expect 200 "the same again is the same episode"
same 'it["episode_id"]' "$EPISODE"

search "$QUERY" true
same '[it["playbook"]["activated"], it["playbook"]["notes"][0]["episode_id"]]' "[true, \"$EPISODE\"]"
RANK=$(json "[h['rank'] for h in it['hits'] if h['id'] == '$WANTED'][0]")
[ "$RANK" -lt 8 ] || fail "the document that worked stands at $RANK, as before"
search "moving pallets during the night, who can do that" true
PARAPHRASE=$(json "([h['rank'] for h in it['hits'] if h['id'] == '$WANTED'] + [99])[0]")
search "arc welding of steel frames" true
same 'it["playbook"]["activated"]' false

call GET "/v1/matrix/playbook/$EPISODE"
same 'it["ratings"][0]["rating"]' 1
call POST "/v1/matrix/playbook/$EPISODE/retire"
expect 200
search "$QUERY" true
cmp -s "$BODY" "$WORK/cold" || fail "a retired episode still changes the search"
call POST /v1/matrix/playbook -H "$JSON" -d "{\"query\": \"x\", \"ratings\": [{\"corpus\": \"$CORPUS\", \"id\": \"none\", \"rating\": 1}]}"
expect 422 "a document that does not exist"
call DELETE "/v1/matrix/corpora/$CORPUS"

# The gate itself, in short: what the playbook gives and that it harms nothing.
"$ROOT/scripts/playbook_lift" --fast --gateway "$GATEWAY" --out "$WORK/lift.json" >"$WORK/lift" 2>&1 ||
    fail "playbook_lift --fast: $(tail -n 3 "$WORK/lift")"

pass "what worked rose from 8 to $RANK (asked otherwise: $PARAPHRASE), retired without a trace; the gate is open"
