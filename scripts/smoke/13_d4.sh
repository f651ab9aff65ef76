# d4: a CSV with faults becomes a table; what does not fit is kept as rejects. JSON lines and
# Parquet join it.
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

cat >"$WORK/in.jsonl" <<'JSON'
{"worker_id": 5, "name": "Nils Vik", "zip": "0010", "rate": 30.10, "start": "2026-04-01"}
{"worker_id": 6, "name": "Eva Dahl", "skills": ["MIG", "TIG"]}
{"worker_id": 7, "name":
JSON
call POST "/v1/ingest?dataset=$NAME&contract=evolve" -H 'Content-Type: application/x-ndjson' --data-binary @"$WORK/in.jsonl"
expect 200 "JSON lines"
same '[it["rows_in"], it["rows_out"], it["rejects"]["count"]]' '[3, 2, 1]'
same '{c["name"]: c["type"] for c in it["schema"]}["skills"]' 'VARCHAR[]'

"$ROOT/.venv/bin/python" - "$WORK/in.parquet" <<'PY'
import sys

import pyarrow as pa
import pyarrow.parquet as pq

columns = {"worker_id": pa.array([8, 9], pa.uint64()), "name": ["Mia Ness", "Per Lund"]}
pq.write_table(pa.table(columns), sys.argv[1])
PY
call POST "/v1/ingest?dataset=$NAME&contract=evolve" -H 'Content-Type: application/octet-stream' --data-binary @"$WORK/in.parquet"
expect 200 "Parquet"
same '[it["rows_in"], it["rows_out"], it["rejects"]["count"]]' '[2, 2, 0]'

call POST "/v1/sql" -H 'Content-Type: application/json' -d "{\"sql\": \"select count(*), count(skills), sum(rate)::VARCHAR from $NAME\"}"
expect 200 "all of it in one table"
same 'it["rows"]' '[[7, 1, "122.85"]]'

printf 'id,rate\n1,30\n2,31\n' >"$WORK/jan.csv"
printf 'id,rate,city\n3,30.5,Oslo\nbad\n4,28,Voss\n5,29,Bodo\n' | gzip >"$WORK/feb.csv.gz"
for i in 1 2; do
    call POST "/v1/ingest?dataset=${NAME}_months&contract=evolve" \
        -F "file=@$WORK/jan.csv" -F "file=@$WORK/feb.csv.gz"
    expect 200 "several files"
    same '[it["duplicate"], it["rows_in"]]' "$([ $i = 1 ] && echo '[false, 6]' || echo '[true, 6]')"
    same '[[f["name"], f["rows_out"], f["rejects"]] for f in it["files"]]' '[["jan.csv", 2, 0], ["feb.csv.gz", 3, 1]]'
    same '{c["name"]: c["type"] for c in it["schema"]}' '{"id": "BIGINT", "rate": "DECIMAL(18,1)", "city": "VARCHAR"}'
done
call GET "/v1/catalog/datasets/${NAME}_months/snapshots"
same 'len(it["snapshots"])' 1

call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' --data-binary ''
expect 422 "an empty file"

pass "typed without loss, rejects kept, retry harmless, conflict named, JSON lines and Parquet joined, several files one commit"
