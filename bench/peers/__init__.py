"""Programs that are members of other stores, for comparisons."""
