"""Tries an installed llm-router as a newcomer would: version, demo, one streamed answer, metrics, a clean stop.

usage: smoke.py PATH_OF_LLM_ROUTER FILE_FOR_PROMETHEUS_TEXT
Needs nothing but the standard library, so that what it starts has only its own dependencies.
"""

import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

WITHIN_SECONDS = 10


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ask(port: int, method: str, path: str, body: object = None, accept: str = "*/*") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_SECONDS)
    payload = None if body is None else json.dumps(body)
    connection.request(method, path, payload, {"Content-Type": "application/json", "Accept": accept})
    return connection.getresponse()


def wait_until_healthy(port: int, process: subprocess.Popen[bytes]) -> float:
    started = time.monotonic()
    while time.monotonic() - started < WITHIN_SECONDS:
        if process.poll() is not None:
            sys.exit(f"the router ended with status {process.returncode} before it answered")
        try:
            if ask(port, "GET", "/health").status == 200:
                return time.monotonic() - started
        except OSError:
            time.sleep(0.02)
    sys.exit(f"no healthy answer within {WITHIN_SECONDS} s")


def check_stream(port: int) -> None:
    body = {"model": "router", "stream": True, "messages": [{"role": "user", "content": "Good morning, how are you?"}]}
    answer = ask(port, "POST", "/v1/chat/completions", body)
    assert answer.status == 200, (answer.status, answer.read())
    events = [line.decode().strip().removeprefix("data: ") for line in answer if line.startswith(b"data: ")]
    assert events[-1] == "[DONE]", events[-3:]
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert "made-up answer" in text, text
    assert answer.headers["x-router-provider"] == "healthy", answer.headers.items()
    assert int(answer.headers["x-router-attempts"]) > 1, answer.headers.items()
    print(f"streamed {len(chunks)} chunks from {answer.headers['x-router-model']}")


def check_page(port: int) -> None:
    page = ask(port, "GET", "/", accept="text/html").read().decode()
    assert "<script>" in page, page[:500]
    assert "{{" not in page, page


def main(program: str, metrics_file: str) -> None:
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)  # noqa: S603 - ours
    print(said.stdout.strip())
    port = free_port()
    process = subprocess.Popen([program, "serve", "--demo", "--port", str(port)])  # noqa: S603 - ours
    try:
        print(f"healthy after {wait_until_healthy(port, process):.2f} s")
        check_stream(port)
        check_page(port)
        metrics = ask(port, "GET", "/metrics", accept="text/plain")
        assert metrics.status == 200, metrics.status
        pathlib.Path(metrics_file).write_bytes(metrics.read())
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_SECONDS) == 0, process.returncode
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
