"""Sweeps: many pipelines that differ in some fields, run side by side and compared on one page."""
