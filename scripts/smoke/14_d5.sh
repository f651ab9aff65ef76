# d5: SQL answers in JSON, NDJSON and Arrow, and refuses all that is not a query.
source "$(dirname "$0")/lib.sh"
NAME=smoke_d5_$RUN

{ echo id,city,rate; for i in $(seq 1 2000); do echo "$i,City$((i % 7)),$((i % 50)).25"; done; } >"$WORK/in.csv"
call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' --data-binary @"$WORK/in.csv"
expect 200

sql() { call POST /v1/sql -H 'Content-Type: application/json' "${@:2}" -d "$1"; }
sql "{\"sql\": \"select city, count(*) as n from $NAME group by city order by city limit 2\"}"
expect 200
same 'it["rows"]' '[["City0", 285], ["City1", 286]]'
sql "{\"sql\": \"select id from $NAME where id > ? order by id\", \"params\": [1990], \"max_rows\": 3}"
expect 200
same '[it["rows"], it["truncated"]]' '[[[1991], [1992], [1993]], true]'
sql "{\"sql\": \"select id from $NAME order by id\"}" -H 'Accept: application/x-ndjson'
expect 200
[ "$(grep -c '"id"' "$BODY")" = 2000 ] || fail "NDJSON does not hold 2000 rows"
sql "{\"sql\": \"select id from $NAME\"}" -H 'Accept: application/vnd.apache.arrow.stream'
expect 200
ROWS=$("$ROOT/.venv/bin/python" -c 'import sys, pyarrow.ipc as ipc; print(ipc.open_stream(sys.argv[1]).read_all().num_rows)' "$BODY")
[ "$ROWS" = 2000 ] || fail "Arrow holds $ROWS rows"

for bad in "drop table $NAME" "copy $NAME to 'x'" "select * from '/etc/passwd'" \
    "select * from read_text('/etc/passwd')" "select getenv('HOME')" "select 1; select 2"; do
    sql "{\"sql\": \"$bad\"}"
    [[ $STATUS = 4?? ]] || fail "not refused: $bad"
done
sql '{"sql": "select count(*) from range(100000000000) a, range(1000) b", "timeout_s": 0.5}'
expect 504 "a runaway query"
sql "{\"sql\": \"select count(*) from $NAME\"}"
expect 200 "the next query"

call GET "/v1/sql/tables/$NAME"
expect 200
same 'it["rows"]' 2000

pass "three formats, parameters, limits, attacks refused, runaway ended"
