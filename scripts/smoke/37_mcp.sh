# mcp: both eras of the protocol through the gateway; a table is asked by tools; strangers are refused.
source "$(dirname "$0")/lib.sh"
NAME=smoke_mcp_$RUN
HOW=(-H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream')
META='"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "smoke", "version": "1"}, "io.modelcontextprotocol/clientCapabilities": {}}'

# tool NAME ARGUMENTS: calls a tool by one plain request of the stateless protocol.
tool() {
    call POST /v1/mcp "${HOW[@]}" -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' \
        -H "Mcp-Name: $1" -d "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"tools/call\",
        \"params\": {\"name\": \"$1\", \"arguments\": $2, $META}}"
    expect 200 "$1"
}

call POST "/v1/ingest?dataset=$NAME" -H 'Content-Type: text/csv' --data-binary $'city,rate\nOslo,31\nOslo,33\nBergen,40\n'
expect 200

call POST /v1/mcp "${HOW[@]}" -d '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "smoke", "version": "1"}}}'
expect 200 "an older client"
same 'it["result"]["serverInfo"]["name"]' lakehouse
call POST /v1/mcp "${HOW[@]}" -d '{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}'
expect 200
TOOLS=$(json 'len(it["result"]["tools"])')
same 'all(None not in t["annotations"].values() and t["outputSchema"] for t in it["result"]["tools"])' true

tool run_sql "{\"sql\": \"select city, count(*) n from $NAME where rate > ? group by 1 order by 1\", \"params\": [30]}"
same 'it["result"]["structuredContent"]["rows"]' '[["Bergen", 1], ["Oslo", 2]]'
tool describe_dataset "{\"name\": \"$NAME\"}"
same '[c["name"] for c in it["result"]["structuredContent"]["columns"]]' '["city", "rate"]'
tool run_sql "{\"sql\": \"drop table $NAME\"}"
same 'it["result"]["isError"]' true
tool add_pathway "{\"content\": {\"tried\": \"mcp $RUN\"}, \"tags\": [\"smoke$RUN\"]}"
tool search_pathway "{\"query\": \"mcp\", \"tag\": \"smoke$RUN\"}"
same 'len(it["result"]["structuredContent"]["hits"])' 1

call POST /v1/mcp "${HOW[@]}" -H 'Origin: http://evil.example' -d '{"jsonrpc": "2.0", "id": 3, "method": "ping"}'
expect 403 "a page from elsewhere"
call GET /v1/mcp
expect 405

pass "$TOOLS tools in two eras, a table asked by one, a drop refused, a foreign page kept out"
