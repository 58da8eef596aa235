"""Values and parsing of the configuration; reads no file and no environment by itself."""
