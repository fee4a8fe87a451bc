"""Videos: parity with the whole model, files, refusals, and a deployment."""
