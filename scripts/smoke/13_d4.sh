# d4: a CSV with faults becomes a table; what does not fit is kept as rejects.
source "$(dirname "$0")/lib.sh"
NAME=smoke_d4_$RUN

cat >"$WORK/in.csv" <<'CSV'
worker_id,name,zip,rate,start
1,"Hansen, Kari",0150,31.50,2026-01-05
2,Ola Nordmann,0473,28.25,2026-02-01
3,too,many,fields,here,now
4,Åse Lie,5003,33.00,2026-03-15
CSV
call POST "/v1/ingest?dataset=$NAME&mode=append" -H 'Content-Type: text/csv' --data-binary @"$WORK/in.csv"
expect 200
same '[it["rows_in"], it["rows_out"], it["rejects"]["count"], it["duplicate"]]' '[4, 3, 1, false]'
same '{c["name"]: c["type"] for c in it["schema"]}["zip"]' VARCHAR
REJECTS=$(json 'it["rejects"]["object"]')

call POST "/v1/ingest?dataset=$NAME&mode=append" -H 'Content-Type: text/csv' --data-binary @"$WORK/in.csv"
expect 200 "the same file again"
same 'it["duplicate"]' true

call HEAD "/v1/storage/objects/$REJECTS"
expect 200 "the rejects are kept"

call POST "/v1/ingest?dataset=$NAME" -F "file=@$WORK/in.csv;type=text/csv"
expect 200 "the same file as a form"
same 'it["duplicate"]' true

printf 'worker_id,name,zip,rate,start\nabc,X,1,1.00,2026-01-01\n' >"$WORK/bad.csv"
call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' --data-binary @"$WORK/bad.csv"
expect 409 "a type that does not fit"
same '"worker_id" in json.dumps(it["error"]["details"])' true

call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' --data-binary ''
expect 422 "an empty file"

pass "typed without loss, reject kept, retry harmless, conflict named"
