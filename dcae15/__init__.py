"""Open training system for DC-AE 1.5."""
