"""Sweeps: the same recipe under several settings, and what each is worth on validation data."""
