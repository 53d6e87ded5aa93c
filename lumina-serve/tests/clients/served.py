"""The program `lumina-serve` with the small model, for a test: by the path in LUMINA_SERVE."""

import os
import pathlib
import subprocess
import threading
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODEL = ROOT / "model"
PROMPT = "a small red circle on a white background"


class Served:
    """A server on a port of its own, which ends with `stop`."""

    def __init__(self, *arguments):
        command = [os.environ["LUMINA_SERVE"], "--model", str(MODEL), "--port", "0", *arguments]
        environment = {k: v for k, v in os.environ.items() if k not in ("LUMINA_API_KEY", "LUMINA_LOG")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log = []
        self.url = None
        for line in self.process.stderr:
            self.log.append(line)
            if "listening at " in line:
                self.url = line.split("listening at ")[1].split()[0]
                break
        if self.url is None:
            raise RuntimeError("the server has ended: " + "".join(self.log))
        # It goes on to be read, so that the server does not wait for a reader.
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def metric(self, name):
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"lumina_{name} "):
                    return float(line.split()[1])
        raise KeyError(name)

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=60)
        self.reader.join()
        self.process.stderr.close()
        failures = [line for line in self.log if "ERROR" in line or "panicked" in line]
        if status or failures:
            raise RuntimeError(f"the server has ended with {status}: {failures}")
