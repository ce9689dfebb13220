"""The demo: an invented landscape with planted anomalies."""
