"""What could make answers faster or entries smaller and is not exact: measured, never a default.

`python -m benchmarks.options` runs each option beside the exact engine. Another option is a class like those of
`benchmarks.options.workers` and a line of `benchmarks.options.table.OPTIONS`.
"""
