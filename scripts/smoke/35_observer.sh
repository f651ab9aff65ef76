# observer: events are durable when answered, recorded once, counted, and put together to runs.
source "$(dirname "$0")/lib.sh"
JSON='Content-Type: application/json'
R=smoke-$RUN

call POST /v1/observer/events -H "$JSON" -d "{\"events\": [
  {\"run_id\": \"$R\", \"id\": \"$R-1\", \"status\": \"started\"},
  {\"run_id\": \"$R\", \"id\": \"$R-2\", \"node_id\": \"search\", \"status\": \"error\", \"mode\": \"smoke-$RUN\", \"latency_ms\": 20, \"error\": {\"type\": \"timeout\"}},
  {\"run_id\": \"$R\", \"id\": \"$R-3\", \"node_id\": \"search\", \"status\": \"ok\", \"attempt\": 2, \"mode\": \"smoke-$RUN\", \"latency_ms\": 10, \"tokens\": {\"prompt\": 5, \"completion\": 7}},
  {\"run_id\": \"$R\", \"id\": \"$R-4\", \"node_id\": \"score\", \"status\": \"ok\", \"verdict\": \"accepted\", \"score\": 0.9, \"scorer_status\": \"timeout\", \"evidence\": [\"d1\"]}]}"
expect 200
same '[it["accepted"], it["duplicates"]]' '[4, 0]'
call POST /v1/observer/events -H "$JSON" -d "{\"run_id\": \"$R\", \"id\": \"$R-3\", \"status\": \"ok\"}"
expect 200 "the same id again"
same '[it["accepted"], it["duplicates"]]' '[0, 1]'
call POST /v1/observer/events -H "$JSON" -d "{\"events\": [{\"run_id\": \"$R\", \"status\": \"fine\"}]}"
expect 400 "an unknown status"

call GET "/v1/observer/runs/$R"
expect 200
same '[it["status"], it["events"], it["complete"], it["prompt_tokens"]]' '["started", 4, true, 5]'
same '[(s["node_id"], s["attempts"]) for s in it["steps"] if s["node_id"] == "search"]' '[["search", 2]]'
# A scorer that timed out accepts nothing.
same 'it["verdicts"]' '{"needs_human_review": 1}'
call GET "/v1/observer/stats"
same "[it[\"by_mode\"][\"smoke-$RUN\"][\"by_status\"], it[\"log\"][\"missing\"]]" '[{"error": 1, "ok": 1}, 0]'

LIVED=$(date +%s%N)
"$ROOT/.venv/bin/python" "$ROOT/scripts/fleet.py" restart observerd >"$WORK/restart" 2>&1 ||
    fail "observerd did not restart: $(tail -n 3 "$WORK/restart")"
for _ in $(seq 100); do
    call GET "/v1/observer/events?run_id=$R&after=0"
    [ "$STATUS" = 200 ] && break
    sleep 0.1
done
same '[e["event"]["id"][-1] for e in it["events"]]' '["1", "2", "3", "4"]'
BACK=$((($(date +%s%N) - LIVED) / 1000000))

pass "4 events recorded once, a run put together, a failed scorer not believed, back in $BACK ms"
