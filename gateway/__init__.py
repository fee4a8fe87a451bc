"""The HTTP face: OpenAI's shapes outside, the workers' gRPC inside. Holds no model and imports no torch."""
