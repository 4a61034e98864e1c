"""Load test of the demo: every concurrent request gets its own image or an error that the queue is full.

    python -m weftwork.scripts.maintenance.check_demo_load --clients 50 --seconds 120

Starts `weftwork demo` on loopback. Every client requests images of its own seeds and compares them with those of
`weftwork generate`. Reads the memory of the demo from /proc, so it needs Linux.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from PIL import Image

SEEDS = 8
STEPS = 2
WARM_SHARE = 0.25
"""Fraction of the run after which memory must not grow."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="concurrent clients (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=120, help="duration (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=16, help="queue size of the demo (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        expected = _expected(Path(room))
        process, address = serve(arguments.queue, Path(room))
        try:
            counts, memory = _load(address, arguments.clients, arguments.seconds, expected, process.pid)
        finally:
            process.terminate()
            process.wait(60)
    settled = memory[int(len(memory) * WARM_SHARE) :]
    spread = (max(settled) - min(settled)) / (max(settled) + min(settled))
    print(f"{arguments.clients} clients, {arguments.seconds:.0f} s: {dict(counts)}")
    print(f"memory: {min(settled)} to {max(settled)} MB after warming up (±{spread:.1%}), {settled[-1]} MB at the end")
    good = not counts["wrong"] and not counts["lost"] and counts["answered"] and spread <= 0.1
    print("as it should be" if good else "NOT as it should be")
    return 0 if good else 1


def design(seed: int) -> dict[str, object]:
    return {"prompt": f"a person {seed}", "seed": seed, "num_inference_steps": STEPS}


def _expected(room: Path) -> dict[int, bytes]:
    """Returns the pixels of `weftwork generate` by seed."""
    lines = [json.dumps({**design(seed), "name": str(seed)}) + "\n" for seed in range(SEEDS)]
    (room / "designs.jsonl").write_text("".join(lines))
    command = [sys.executable, "-m", "weftwork.scripts.cli", "generate", "--input", str(room / "designs.jsonl")]
    subprocess.run([*command, "--output", str(room / "images")], check=True, capture_output=True)
    return {seed: _pixels(room / "images" / f"{seed}.png") for seed in range(SEEDS)}


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def serve(waiting: int, room: Path, *options: str) -> tuple["subprocess.Popen[bytes]", str]:
    """Starts a demo with such a queue and its files in `room`; returns it with its address once it responds.

    Args:
        options: further options of `weftwork demo`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "weftwork.scripts.cli", "demo", "--port", str(port), "--queue", str(waiting)]
    command += options
    environment = {**os.environ, "TMPDIR": str(room), "HF_HUB_OFFLINE": "1"}
    with (room / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urlopen(f"{address}/config", timeout=5).close()
            return process, address
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"demo: did not start:\n{(room / 'log').read_text()}")


def _load(
    address: str, clients: int, seconds: float, expected: dict[int, bytes], server: int
) -> tuple[Counter[str], list[int]]:
    """Returns counts of call results, and the demo's memory in MB over time."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        call = number
        while time.monotonic() < end:
            counts[_call(address, call % SEEDS, expected)] += 1
            call += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        memory.append(_memory(server))
        time.sleep(1)
    for thread in threads:
        thread.join()
    return counts, memory


def _call(address: str, seed: int, expected: dict[int, bytes]) -> str:
    """Sends one request; "answered", "wrong" (another image), "busy" (rejected, waits briefly) or "lost" (other)."""
    body = json.dumps({"data": [design(seed)]}).encode()
    try:
        request = Request(f"{address}/gradio_api/call/generate", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=300) as answer:
            event = json.load(answer)["event_id"]
        with urlopen(f"{address}/gradio_api/call/generate/{event}", timeout=300) as stream:
            text = stream.read().decode()
    except HTTPError as error:
        time.sleep(1)
        return "busy" if error.code in (429, 503) else "lost"
    except OSError:
        return "lost"
    if "event: complete" not in text:
        time.sleep(1)
        return "busy" if "full" in text else "lost"
    (image, used) = json.loads(text.split("event: complete")[1].split("data: ", 1)[1].splitlines()[0])
    with tempfile.NamedTemporaryFile(suffix=".png") as file, urlopen(image["url"], timeout=300) as content:
        file.write(content.read())
        file.flush()
        same = _pixels(Path(file.name)) == expected[seed]
    return "answered" if same and used["seed"] == seed else "wrong"


def _memory(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


if __name__ == "__main__":
    sys.exit(main())
