"""Said before any test module loads torch."""

from lookonce.barriers import spin_briefly

# Whatever else runs on the machine: a test shall not take ten times as long for it.
spin_briefly()
