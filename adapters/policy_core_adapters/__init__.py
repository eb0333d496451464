"""Adapters between policy_core and other packages: one package a module, imported on demand."""
