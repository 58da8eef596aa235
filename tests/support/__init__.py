"""What the black-box suites share: scripted upstreams, raw clients, the router as a process, an SSE reader.

Standard library and asyncio only, nothing of `llm_router` is imported: the suites see what an outsider sees.
"""
