# workflow: a YAML graph runs over the fleet's modes, fails where it should, is resumed, streamed.
source "$(dirname "$0")/lib.sh"
JSON='Content-Type: application/json'
YAML='Content-Type: application/yaml'
RUNS=/v1/observer/workflows/runs
W=smoke-$RUN

call GET /v1/observer/workflows/modes
expect 200
same '{"matrix.search", "matrix.relevance", "matrix.downgrade", "sql", "pathway.search", "playbook.record", "fixture.echo", "fixture.upper"} <= {m["name"] for m in it["modes"]}' true

call POST "$RUNS" -H "$JSON" -d "{\"name\": \"n\", \"run_id\": \"$W\", \"nodes\": [{\"id\": \"a\", \"mode\": \"fixture.echo\", \"with\": {\"text\": \"hello\"}}, {\"id\": \"b\", \"mode\": \"fixture.upper\", \"depends_on\": [\"a\"], \"with\": {\"text\": \"\$a.output.text\"}}]}"
expect 202
call GET "$RUNS/$W?wait=30"
expect 200
same '[it["status"], it["outcome"], it["nodes"]["b"]["output"]["text"], it["nodes"]["b"]["attempts"]]' '["completed", null, "HELLO", 1]'

call POST "$RUNS" -H "$JSON" -d '{"name": "n", "nodes": [{"id": "a", "mode": "sql", "depends_on": ["b"]}, {"id": "b", "mode": "sql", "depends_on": ["a"]}]}'
expect 400 "a cycle"
same '"a -> b -> a" in it["error"]["message"]' true
call POST "$RUNS" -H "$JSON" -d '{"name": "n", "nodes": [{"id": "a", "mode": "matrix.serch", "with": {}}]}'
expect 400 "an unknown mode"
same "\"did you mean 'matrix.search'\" in it[\"error\"][\"message\"]" true

cat >"$WORK/flow.yaml" <<END
name: mixed
run_id: $W-2
inputs: {tier: tier/frontier_review}
outcome: \$gate.output.mode
nodes:
  - {id: rows, mode: sql, with: {sql: "select 6 * 7 as n"}}
  - {id: gate, mode: matrix.downgrade, with: {mode: composed, model: \$inputs.tier}}
  - {id: traces, mode: pathway.search, with: {query: "answer \$rows.output.rows[0][0]", k: 1}, depends_on: [rows]}
  - {id: never, mode: fixture.echo, depends_on: [rows], when: "\$rows.output.rows[0][0] < 40"}
  - {id: broken, mode: sql, with: {sql: "select * from no_such_table_$RUN"}}
  - {id: below, mode: fixture.echo, depends_on: [broken, rows], trigger_rule: none_failed_min_one_success}
  - {id: tidy, mode: fixture.echo, depends_on: [broken], trigger_rule: all_done, with: {was: \$broken.state, said: "n=\$inputs.tier"}}
END
call POST "$RUNS" -H "$YAML" --data-binary @"$WORK/flow.yaml"
expect 202
call GET "$RUNS/$W-2?wait=30"
same '[it["status"], it["outcome"]]' '["failed", "isolated"]'
same '[it["nodes"][n]["state"] for n in ("rows", "gate", "traces", "never", "broken", "below", "tidy")]' '["completed", "completed", "completed", "skipped", "failed", "skipped", "completed"]'
same '[it["nodes"]["never"]["skip_cause"], it["nodes"]["below"]["skip_cause"], it["nodes"]["tidy"]["output"]["was"]]' '["condition", "upstream_failed", "failed"]'

call POST "/v1/ingest?dataset=no_such_table_$RUN&mode=replace" -H 'Content-Type: text/csv' --data-binary $'a\n1\n'
expect 200
call POST "$RUNS/$W-2/resume"
expect 202
call GET "$RUNS/$W-2?wait=30"
same '[it["status"], it["resumes"], it["nodes"]["rows"]["skip_cause"], it["nodes"]["rows"]["executions"]]' '["completed", 1, "prior_success", 1]'
same '[it["nodes"]["broken"]["executions"], it["nodes"]["below"]["state"]]' '[2, "completed"]'
call GET "$RUNS/$W-2/events"
expect 200
grep -q '^event: end$' "$BODY" || fail "the stream has no end"

call POST "$RUNS" -H "$JSON" -d "{\"name\": \"slow\", \"run_id\": \"$W-3\", \"nodes\": [{\"id\": \"a\", \"mode\": \"fixture.echo\", \"with\": {\"delay_ms\": 60000}}]}"
expect 202
call POST "$RUNS/$W-3/cancel"
expect 200
same '[it["status"], it["nodes"]["a"]["state"]]' '["cancelled", "cancelled"]'

pass "graphs over five modes ran, failed where they should, were resumed, streamed and cancelled"
