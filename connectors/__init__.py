"""Talks to CRMs. Knows no warehouse and no rules; what it hands on are landed files with a manifest (landing.py)."""
