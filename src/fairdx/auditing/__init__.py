"""The audit of a table of predictions: figures with intervals and tests, in words, files and a page."""

from fairdx.auditing.engine import audit
from fairdx.auditing.evaluate import evaluate
from fairdx.auditing.gate import Condition, parse_condition
from fairdx.auditing.monitored import MonitorResult, monitor_schema
from fairdx.auditing.monitoring import monitor
from fairdx.auditing.predictions import Predictions, read_predictions
from fairdx.auditing.result import AuditResult, json_schema

__all__ = [
    "AuditResult",
    "Condition",
    "MonitorResult",
    "Predictions",
    "audit",
    "evaluate",
    "json_schema",
    "monitor",
    "monitor_schema",
    "parse_condition",
    "read_predictions",
]
