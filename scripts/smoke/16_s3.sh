# s3: the stories d2 to d6 and jobs once more, with a bucket of a real S3 server in place of local files.
source "$(dirname "$0")/lib.sh"
HERE=$ROOT/scripts/smoke/16_s3.sh

if [ "${1:-}" = inside ]; then
    call PUT "/v1/storage/objects/smoke/$RUN/where" --data-binary here
    expect 201
    same 'it["uri"].partition("//")[0]' s3:
    rm -rf "$WORK"
    exec "$ROOT/scripts/smoke/run" d2 d3 d4 d5 d6 jobs
fi
# A SeaweedFS and a fleet of its own, both on free ports and gone at the end.
"$ROOT/.venv/bin/python" "$ROOT/scripts/seaweed.py" -- \
    "$ROOT/.venv/bin/python" "$ROOT/scripts/private_fleet.py" \
    --only gateway,storaged,catalogd,ingestd,queryd -- bash "$HERE" inside >"$WORK/stories" 2>&1 ||
    { cat "$WORK/stories"; fail "a story does not hold on S3"; }
[ "$(grep -c '^ok ' "$WORK/stories")" = 6 ] || { cat "$WORK/stories"; fail "a story is missing"; }

pass "d2 to d6 and jobs on SeaweedFS: put, catalogue, ingest, query, end to end, jobs and upserts"
