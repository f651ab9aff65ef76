"""MCP over standard input and output, for clients that start their servers themselves.

The same server as over HTTP, and the same gateway behind it. Standard output belongs to the
protocol: whatever is to be said goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from shared.clients.gateway import Gateway, at_gateway
from shared.config import Config, ConfigError, load
from shared.logs import configure_logging
from shared.runtime import DEFAULT_CONFIG


def main() -> int:
    """Reads the command line and serves until standard input ends; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.mcpd --stdio")
    parser.add_argument("--stdio", action="store_true", required=True)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="the TOML file")
    parser.add_argument(
        "--gateway",
        default=os.environ.get("LAKEHOUSE_GATEWAY", ""),
        help="the gateway's address; LAKEHOUSE_GATEWAY, or else the configured one",
    )
    parser.add_argument("--read-only", action="store_true", help="offer no tool that writes")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.read_only:
        closed = config.mcpd.model_copy(update={"read_only": True})
        config = config.model_copy(update={"mcpd": closed})
    # Before the SDK is built, which would set up its own otherwise.
    configure_logging(config.log, "mcpd")
    logging.getLogger("mcp").setLevel(logging.WARNING)
    # A secret on the command line would be seen by everyone on the machine.
    token = os.environ.get("LAKEHOUSE_TOKEN")
    try:
        asyncio.run(run(at_gateway(config, arguments.gateway, token)))
    except KeyboardInterrupt:
        return 130
    return 0


async def run(config: Config) -> None:
    """Serves one client until it leaves."""
    from services.mcpd.store.server import build_server

    gateway = Gateway(config)
    try:
        await build_server(gateway, config.mcpd).run_stdio_async()
    finally:
        await gateway.aclose()
