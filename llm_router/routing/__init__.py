"""Which model: categories, plans, circuits."""
