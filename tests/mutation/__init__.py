"""Each guard of the product removed in turn: whether anybody would notice."""
