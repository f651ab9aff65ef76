# jobs: a file is taken on as a job and followed to its end; an upsert replaces rows by key.
source "$(dirname "$0")/lib.sh"
NAME=smoke_jobs_$RUN

# Enough rows that the job still runs when its events are asked for.
seq 1 300000 | sed 's/.*/&,worker &,Oslo/; 1i id,name,city' >"$WORK/staff.csv"
call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' -H 'Prefer: respond-async' \
    -H "Idempotency-Key: $NAME" --data-binary @"$WORK/staff.csv"
expect 202
same 'it["status"] in ("queued", "running")' true
JOB=$(json 'it["job_id"]')
[ "$(header location)" = "ingest/jobs/$JOB" ] || fail "the job's address is $(header location)"
[ "$(header preference-applied)" = respond-async ] || fail "the preference was not applied"

call GET "/v1/ingest/jobs/$JOB/events"
expect 200 "its events"
grep -q '^event: progress' "$BODY" || fail "no progress was told"
tail -n 4 "$BODY" | grep -q '^event: end' || fail "the end was not told"

call GET "/v1/ingest/jobs/$JOB?wait=30"
expect 200
same '[it["status"], it["result"]["rows_out"], it["progress"]["stage"]]' '["done", 300000, "done"]'

call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' -H 'Prefer: respond-async, wait=30' \
    -H "Idempotency-Key: $NAME" --data-binary @"$WORK/staff.csv"
expect 200 "the same request again"
call GET "/v1/ingest/jobs?dataset=$NAME"
same '[job["job_id"] for job in it["jobs"]]' "[\"$JOB\"]"
call DELETE "/v1/ingest/jobs/$JOB"
expect 409 "what is done cannot be cancelled"

printf 'id,name,city\n7,Kari,Bergen\n300001,Ola,Voss\n7,Kari Hansen,Bergen\n,nobody,Oslo\n' >"$WORK/changes.csv"
call POST "/v1/ingest?dataset=$NAME&mode=upsert&key=id" -H 'Content-Type: text/csv' \
    --data-binary @"$WORK/changes.csv"
expect 200 "an upsert"
same '[it["rows_in"], it["inserted"], it["updated"], it["rejects"]["count"]]' '[4, 1, 1, 2]'

call POST /v1/sql -H 'Content-Type: application/json' \
    -d "{\"sql\": \"select count(*), count(distinct id), max(name) filter (id = 7) from $NAME\"}"
expect 200
same 'it["rows"]' '[[300001, 300001, "Kari Hansen"]]'

pass "taken on, followed, known again; rows replaced by key in one snapshot"
