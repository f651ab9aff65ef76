"""gateway: the single edge. Routes /v1 to the daemons, guards raw HTTP, shows the fleet as one."""
