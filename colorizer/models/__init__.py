"""Saved models, and what they make of a picture."""
