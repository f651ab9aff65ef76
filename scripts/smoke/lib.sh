# What every smoke stands on: curl against the gateway, and expectations that end the story.
# A smoke sources this, tells its story, and calls `pass`. Needs bash, curl and the project's
# Python (for JSON); it reads LAKEHOUSE_GATEWAY and, where a token is set, LAKEHOUSE_TOKEN.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
GATEWAY=${LAKEHOUSE_GATEWAY:-http://127.0.0.1:3110}
STORY=$(basename "$0" .sh)
STORY=${STORY#*_}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# Names that no earlier run has used, so that a smoke can run twice on one fleet.
RUN=$(printf '%s%05d' "$(date +%s)" "$RANDOM")
BODY=$WORK/body
HEADERS=$WORK/headers
STATUS=

# call METHOD PATH [curl options]: sets STATUS, fills $BODY and $HEADERS.
call() {
    local method=$1 path=$2
    shift 2
    local auth=()
    [ -n "${LAKEHOUSE_TOKEN:-}" ] && auth=(-H "Authorization: Bearer $LAKEHOUSE_TOKEN")
    [ "$method" = HEAD ] && auth+=(--head)
    STATUS=$(curl -sS -m 60 -o "$BODY" -D "$HEADERS" -w '%{http_code}' -X "$method" \
        "${auth[@]}" "$@" "$GATEWAY$path") || fail "curl $method $path did not get an answer"
}

fail() {
    printf 'FAIL %s: %s\n' "$STORY" "$*"
    [ -s "$BODY" ] && printf '     status %s, body: %s\n' "$STATUS" "$(head -c 600 "$BODY")"
    exit 1
}

# expect STATUS [what]: the last call's status.
expect() { [ "$STATUS" = "$1" ] || fail "expected status $1${2:+ ($2)}"; }

# json EXPRESSION: a Python expression over the last body, called `it`.
json() {
    "$ROOT/.venv/bin/python" -c '
import json, sys
it = json.load(open(sys.argv[1]))
value = eval(sys.argv[2])
print(value if isinstance(value, str) else json.dumps(value))' "$BODY" "$1" ||
        fail "the answer has no $1"
}

# same EXPRESSION VALUE: what the last body holds.
same() {
    local found
    found=$(json "$1")
    [ "$found" = "$2" ] || fail "$1 is $found, expected $2"
}

header() { tr -d '\r' <"$HEADERS" | sed -n "s/^$1: //Ip" | tail -n 1; }

pass() { printf 'ok   %-8s %s\n' "$STORY" "$*"; }
