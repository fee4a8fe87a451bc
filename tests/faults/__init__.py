"""Faults made on purpose, under load: real processes, real servers, and answers held against the whole model's."""
