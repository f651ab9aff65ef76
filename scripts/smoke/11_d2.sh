# d2: objects go in and come out, conditionally, in ranges, and by listing.
source "$(dirname "$0")/lib.sh"
KEY=smoke/$RUN/a.bin

head -c 300000 /dev/urandom >"$WORK/in"
call PUT "/v1/storage/objects/$KEY" -H 'If-None-Match: *' --data-binary @"$WORK/in"
expect 201
same 'it["key"]' "$KEY"
same 'it["size"]' 300000
ETAG=$(json 'it["etag"]')

call PUT "/v1/storage/objects/$KEY" -H 'If-None-Match: *' --data-binary @"$WORK/in"
expect 412 "a second create"

call GET "/v1/storage/objects/$KEY"
expect 200
cmp -s "$BODY" "$WORK/in" || fail "the object came back changed"

call GET "/v1/storage/objects/$KEY" -H 'Range: bytes=100-199'
expect 206
cmp -s "$BODY" <(tail -c +101 "$WORK/in" | head -c 100) || fail "the range is wrong"

call GET "/v1/storage/objects/$KEY" -H "If-None-Match: $ETAG"
expect 304

call GET "/v1/storage/objects?prefix=smoke/$RUN/"
expect 200
same '[o["key"] for o in it["objects"]]' "[\"$KEY\"]"

call PUT "/v1/storage/objects/smoke/$RUN/%2e%2e/b" --data-binary x
expect 400 "a key with dot segments"

call DELETE "/v1/storage/objects/$KEY"
expect 200
call GET "/v1/storage/objects/$KEY"
expect 404

pass "put, get, range, conditions, list, delete"
