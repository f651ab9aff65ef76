"""What mcpd stands on: the MCP SDK, and the gateway."""
