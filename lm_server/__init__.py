"""The language worker: prompts and embeddings in, answers out. It never sees a pixel."""
