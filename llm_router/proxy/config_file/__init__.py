"""The configuration file on disk: found, read with `.env` and the environment, changed without loss."""

from llm_router.proxy.config_file.file import ConfigFile, find_file
from llm_router.proxy.config_file.storage import write_new

__all__ = ["ConfigFile", "find_file", "write_new"]
