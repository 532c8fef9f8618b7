"""Thin tasks: from arguments to steps to a run. Every module is a namespace."""
