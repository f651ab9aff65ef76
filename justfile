# The recipes of the house. `just` itself comes with the checks' tools: .venv/bin/just

# List the recipes
default:
    @just --list

# Lint, types, tests and all smokes; `just verify --all` adds the fleet and conformance tiers
verify *tiers:
    scripts/verify {{ tiers }}

# Start the fleet and wait until it is ready
up:
    scripts/fleet.py up

# Stop the fleet
down:
    scripts/fleet.py down

# Each daemon's state
status:
    scripts/fleet.py status

# All smokes, or those named, against the running fleet
smoke *names:
    scripts/smoke/run {{ names }}

# Probe dependencies, ports, disk and the fleet
doctor:
    scripts/doctor

# Run the benchmarks and update docs/BENCHMARKS.md
bench *names:
    scripts/bench {{ names }}

# The official MCP conformance suite against mcpd; installs it at the first run (npm)
conformance:
    scripts/conformance

# Start a new daemon: folder, section, wire, client, unit, docs and smoke
new name:
    scripts/new_daemon {{ name }}

# Format what ruff formats
format:
    .venv/bin/ruff check --fix . && .venv/bin/ruff format .
