"""One module per provider dialect; every one is a sans-IO machine."""
