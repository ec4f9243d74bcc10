"""Metrics: read from the core when somebody asks, never counted per packet in Python.

`metrics.py` is the table of all metrics, `reading.py` looks at an agent,
`instruments.py` puts the one over the other with OpenTelemetry, `endpoint.py`
serves the result and the health checks.
"""

from otus_agent.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
