"""Adapters between policy_core and other packages: one module per package, imported on demand."""
