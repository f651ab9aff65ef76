"""The gateway's decisions: routes, headers, error shapes, the merged API document. No I/O."""
