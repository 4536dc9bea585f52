"""A ninth model, a view and an adapter, each in a file of its own, as anyone would add them."""
