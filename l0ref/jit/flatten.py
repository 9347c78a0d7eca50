"""Twins: to come."""
