"""The gateway's side effects: connections to the daemons, the relay, reading the fleet."""
