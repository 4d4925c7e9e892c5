"""Fairness of predictions: metrics, effects, their uncertainty, and the audit that reports all of it."""
