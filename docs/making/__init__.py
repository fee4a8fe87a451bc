"""Makes the site of the documents: the reference from the code, links to files of the repository, the navigation."""
