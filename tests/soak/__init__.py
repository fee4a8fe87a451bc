"""A deployment under many clients and random faults for a long while: what is lost, and what stays behind."""
