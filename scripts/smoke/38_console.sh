# console: its pages over the fleet, what they send and what they refuse, hostile text as text.
source "$(dirname "$0")/lib.sh"
JAR=$WORK/jar
T=console_$RUN

# page METHOD PATH [curl options]: as a browser, which keeps its cookie.
page() { call "$1" "/console$2" -b "$JAR" -c "$JAR" "${@:3}"; }
shows() { grep -qF -- "$1" "$BODY" || fail "the page does not show $1"; }
hides() { ! grep -qF -- "$1" "$BODY" || fail "the page shows $1"; }
form_token() { sed -n 's/.*"x-csrf-token": "\([0-9a-f]*\)".*/\1/p' "$BODY" | head -n 1; }

for path in "" /datasets /sql /search /playbook /pathway /workflows /lift /drift /chat; do
    page GET "$path"
    expect 200 "/console$path"
    shows '<main id="main"'
done
case $(header content-security-policy) in
    "default-src 'self'"*) ;;
    *) fail "no content policy" ;;
esac
for file in console.css console.js htmx.min.js; do
    page GET "/static/$file"
    expect 200 "$file"
done
page GET ""
shows queryd
page GET /chat
CSRF=$(form_token)
[ -n "$CSRF" ] || fail "no form token"

printf 'name,n\n"<script>alert(1)</script>",1\nplain,2\ntoo,many,fields\n' >"$WORK/evil.csv"
page POST "/datasets/ingest?dataset=$T" -H "x-csrf-token: $CSRF" -H 'content-type: text/csv' \
    --data-binary @"$WORK/evil.csv"
expect 202 "ingest"
JOB=$(json 'it["job"]')
page GET "${JOB#/console}/events"
grep -q '^event: end' "$BODY" || fail "the end of the ingest was not told"
page GET "${JOB#/console}"
expect 200 "what came of it"
shows "2 rows are in $T"
page GET "/datasets/$T"
shows '&lt;script&gt;alert(1)&lt;/script&gt;'
hides '<script>alert(1)'
shows 'Download rejects'

page POST /sql --data-urlencode "_csrf=$CSRF" --data-urlencode "sql=select name, n from $T order by n"
expect 200 "a query"
shows '2 rows'
shows '<svg viewBox'
hides '<script>alert(1)'
page POST /sql/download --data-urlencode "_csrf=$CSRF" --data-urlencode "sql=select n from $T order by n" -d format=csv
expect 200 "a download"
[ "$(tr -d '\r' <"$BODY" | paste -sd' ')" = "n 1 2" ] || fail "the CSV is not the result"
page POST /workflows -d "_csrf=$CSRF" --data-urlencode "document={name: c, run_id: $T, nodes: [{id: a, mode: fixture.upper, with: {text: seen}}]}"
expect 303 "a workflow"
call GET "/v1/observer/workflows/runs/$T?wait=30"
page GET "/workflows/$T"
shows node-completed
shows SEEN

for refused in "-H x-csrf-token:$CSRF -H Origin:http://evil.example" "-H x-csrf-token:$CSRF -H Sec-Fetch-Site:cross-site" "-d _csrf=0"; do
    # shellcheck disable=SC2086 # options, one word each
    STATUS=$(curl -sS -m 60 -o "$BODY" -w '%{http_code}' -b "$JAR" $refused -d 'sql=select 1' "$GATEWAY/console/sql")
    if [ -n "${LAKEHOUSE_TOKEN:-}" ]; then expect 303 "no login"; else expect 403 "from elsewhere: $refused"; fi
done
page GET "" -H 'Host: rebound.example'
expect 421 "a foreign Host"

pass "ten pages, ingest, query, chart, download and a workflow from forms; forgeries refused"
