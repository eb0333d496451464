"""Trace-time validation: pytrees against shapes and dtypes, arguments against the contract."""
