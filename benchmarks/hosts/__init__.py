"""Two hosts on one machine, network namespaces with a link of a given rate, and when the split pays there."""
