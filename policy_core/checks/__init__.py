"""Trace-time checks: arrays against shapes and dtypes, arguments against the contract."""
