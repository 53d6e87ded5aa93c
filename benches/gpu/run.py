"""One table of lumina-mgpt's `gpu` benchmark and PyTorch, on a machine with nothing but a driver.

    cargo bench -p lumina-mgpt --no-run --features cuda,wgpu --bench gpu      # where there is a toolchain; strip and carry it
    python3 benches/gpu/run.py <the program> [7b|1b|tiny] [cuda|wgpu]         # on the machine with the GPU

PyTorch's column is there where it is installed. 7B takes 13.5 GB in LUMINA_BENCH_DIR (/dev/shm is a good place).
"""

import pathlib
import shutil
import subprocess
import sys


def rows_of(command, cells):
    """The rows that a program prints, by their name."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, str(error)
    found = {}
    for line in run.stdout.splitlines():
        parts = [part.strip() for part in line.strip().strip("|").split("|")]
        if len(parts) == cells and parts[0] and not parts[0].startswith("---"):
            found[parts[0]] = parts[1]
    return found, "" if run.returncode == 0 else run.stderr.strip()[-2000:]


def main():
    program = sys.argv[1]
    shape = sys.argv[2] if len(sys.argv) > 2 else "7b"
    device = sys.argv[3] if len(sys.argv) > 3 else "cuda"
    card = "no nvidia-smi"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    ours, failed = rows_of([program, device, shape, "bf16", "q8", "q4"], 2)
    peer, peer_failed = rows_of([sys.executable, pathlib.Path(__file__).with_name("pytorch.py"), shape], 2)
    print(f"{card}; {device}, {shape}\n\n| | ours | PyTorch |\n| --- | --- | --- |")
    for name, value in ours.items():
        print(f"| {name} | {value} | {peer.get(name, '–')} |")
    for who, error in [("ours", failed), ("PyTorch", peer_failed)]:
        if error:
            print(f"\n{who}: {error}")
    sys.exit(1 if failed else 0)


main()
