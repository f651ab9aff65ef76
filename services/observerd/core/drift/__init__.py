"""Drift: has the scorer changed, has the system, or is it noise? Every test keeps its level.

`anchors` asks it of the scorer first, `distributions` of whatever was logged, `streams` of
figures as they come in. Nothing is imported here: numpy loads with the room that needs it.
"""
