"""The measured systems, one module each, behind one interface (`benchmarks.systems.system.System`)."""
