"""Bad inputs by the thousand, made by chance and by seed: `python -m tests.fuzz`."""
