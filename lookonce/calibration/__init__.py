"""How a policies file gets its temperature, bias and threshold from examples that people have labelled.

examples.py    labelled examples, from JSONL or CSV
scoring.py     examples → the model's log-odds, asked of a server
fitting.py     log-odds and labels → temperature and bias. Pure
measures.py    how well scores are ordered, spread and split. Pure
thresholds.py  from which score an input is flagged. Pure
tuning.py      all of these for one policy: what is written and what is told. Pure
editing.py     new values into the file's text, and the rest left as it is. Pure
report.py      the table
plots.py       the curves
"""
