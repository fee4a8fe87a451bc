"""The demo: synthetic scenes, questions about them, and a tiny Qwen2-VL trained to answer."""
