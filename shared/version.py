"""The version that every daemon reports."""

VERSION = "0.1.0"
