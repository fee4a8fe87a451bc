"""The project's benchmarks: one set of workloads, every system on the same images and questions, beside the limit.

`python -m benchmarks.run --help` runs them. Numbers that the project quotes come from `benchmarks/results/`.
"""
