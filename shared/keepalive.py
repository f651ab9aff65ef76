"""How long an idle connection between daemons is kept, on either side.

The client gives up first, so that it never sends a request into a connection that the
server is just closing.
"""

IDLE_CONNECTION_S = 30.0
SERVER_KEEP_ALIVE_S = 75
