"""Something asked of many images: where they come from, what is done about each, and where the results go.

sources.py   images from files, folders and patterns → `Item`s, one after the other
records.py   records of JSONL (question_file.py) and of data sets on disk (dataset.py) → `Item`s
work.py      the seam: what is asked of one item → rows (`Work`); the commands implement it
run.py       several items at a time; one that fails fails alone
journal.py   what is done so far, on disk: the checkpoint that a run which was killed goes on from
results.py   the journal's rows → JSONL, CSV or Parquet, in the sources' order
progress.py  what a person sees meanwhile
to_file.py   all of these together: what a command calls
"""
