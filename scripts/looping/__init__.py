"""The closed loop, run end to end through a gateway and measured round by round."""
