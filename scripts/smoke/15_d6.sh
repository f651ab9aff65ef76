# d6: end to end: CSV in, SQL out, appended and replaced, seen at once and in the past.
source "$(dirname "$0")/lib.sh"
NAME=smoke_d6_$RUN

ingest() { call POST "/v1/ingest?dataset=$NAME&mode=$1" -H 'Content-Type: text/csv' --data-binary "$2"; expect 200; }
count() {
    call POST /v1/sql -H 'Content-Type: application/json' -d "{\"sql\": \"select count(*), sum(id) from $NAME\"$1}"
    expect 200
    json 'it["rows"][0]'
}
ingest append $'id,name\n1,a\n2,b\n'
FIRST=$(json 'it["snapshot_id"]')
[ "$(count '')" = '[2, 3]' ] || fail "the first rows are not there"
ingest append $'id,name\n3,c\n'
[ "$(count '')" = '[3, 6]' ] || fail "the appended row is not there"
ingest replace $'id,name\n10,z\n'
[ "$(count '')" = '[1, 10]' ] || fail "replace left other rows"
[ "$(count ", \"as_of\": \"$FIRST\"")" = '[2, 3]' ] || fail "the past has changed"

call GET "/v1/catalog/datasets/$NAME/snapshots"
expect 200
same 'len(it["snapshots"])' 3
call DELETE "/v1/catalog/datasets/$NAME"
expect 200
call POST /v1/sql -H 'Content-Type: application/json' -d "{\"sql\": \"select * from $NAME\"}"
[[ $STATUS = 4?? ]] || fail "a deleted dataset still answers"

pass "ingest, query, append, replace, time travel, delete"
