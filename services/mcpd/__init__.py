"""mcpd: the system as tools, resources and prompts for agents, over MCP."""
