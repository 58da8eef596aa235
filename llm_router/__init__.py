"""llm_router: an OpenAI-compatible routing proxy that streams."""

__version__ = "0.1.0"
