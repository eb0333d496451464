"""Policies that other libraries have trained, as pairs: `sb3.load(path)`, and the readers beneath.

Files of others are untrusted: nothing in them is run, and nothing is imported by name. See docs/exchange.md.
"""
