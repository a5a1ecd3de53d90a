"""The teacher's network and access to penultimate features."""
