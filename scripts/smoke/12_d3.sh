# d3: a Parquet object becomes part of a dataset once, however often it is registered; versions
# get names and come back, and small files become one.
source "$(dirname "$0")/lib.sh"
NAME=smoke_d3_$RUN

"$ROOT/.venv/bin/python" - "$WORK" <<'PY'
import sys
import pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({"id": [1, 2, 3], "city": ["Oslo", "Bergen", "Tromsø"]}), sys.argv[1] + "/a.parquet")
pq.write_table(pa.table({"id": ["x"], "city": ["Oslo"]}), sys.argv[1] + "/b.parquet")
pq.write_table(pa.table({"id": [4], "city": ["Bodø"]}), sys.argv[1] + "/c.parquet")
PY
for part in a b c; do
    call PUT "/v1/storage/objects/smoke/$RUN/$part.parquet" --data-binary @"$WORK/$part.parquet"
    expect 201
done

register() {
    call POST /v1/catalog/datasets -H 'Content-Type: application/json' \
        -d "{\"name\": \"$NAME\", \"objects\": [\"smoke/$RUN/$1.parquet\"], \"ingest_id\": \"$2\"}"
}
register a first
expect 201
SNAPSHOT=$(json 'it["snapshot_id"]')
register a first
expect 200 "the same ingest again"
same 'it["status"]' unchanged
same 'it["snapshot_id"]' "$SNAPSHOT"
register b second
expect 409 "another schema"
same '"id" in json.dumps(it["error"]["details"])' true

call GET "/v1/catalog/datasets/$NAME"
expect 200
same 'it["rows"]' 3
call GET "/v1/catalog/datasets/$NAME/files"
expect 200
same 'len(it["files"])' 1
call GET "/v1/catalog/datasets/$NAME/snapshots"
expect 200
same 'len(it["snapshots"])' 1

# A name for this version, one more file, both merged, and back to the name.
BODY_JSON=(-H 'Content-Type: application/json' -d)
call PUT "/v1/catalog/datasets/$NAME/tags/before"
expect 201
register c third
expect 200
call POST "/v1/catalog/datasets/$NAME/compact"
expect 200
same 'it["files_after"]' 1
call POST /v1/sql -H 'Accept: application/json' "${BODY_JSON[@]}" "{\"sql\": \"SELECT count(*) FROM $NAME\"}"
expect 200
same 'it["rows"]' '[[4]]'
call POST "/v1/catalog/datasets/$NAME/rollback" "${BODY_JSON[@]}" '{"snapshot": "before"}'
expect 200
same 'it["rows"]' 3
call GET "/v1/catalog/datasets/$NAME/snapshots"
same '[s["tags"] for s in it["snapshots"]]' '[["before"], [], [], []]'
call DELETE "/v1/catalog/datasets/$NAME"
expect 200
call GET "/v1/catalog/datasets/$NAME"
expect 404

pass "registered once, conflict named, tagged, compacted, rolled back, deleted"
