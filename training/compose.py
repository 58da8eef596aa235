from collections.abc import Iterator
def rows() -> Iterator[tuple[str, str, str]]:
    return iter(())
