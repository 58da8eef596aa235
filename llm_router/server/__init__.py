"""Who may ask: the aiohttp application and its routes."""
