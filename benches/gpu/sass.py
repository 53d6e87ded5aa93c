"""Machine code of the CUDA kernels, on any Linux machine: no GPU, driver or toolkit is needed.

    python3 -m venv /tmp/nvrtc && /tmp/nvrtc/bin/pip install nvidia-cuda-nvrtc nvidia-cuda-nvcc
    LUMINA_SOURCES=/tmp/sources cargo test -p lumina-cube --features sources --lib every_kernel
    /tmp/nvrtc/bin/python benches/gpu/sass.py /tmp/sources [--arch sm_90a] [--arch sm_80] [--only few]

Each `*.cu` goes through NVRTC, as CubeCL compiles it, and ptxas. The table has, for each kernel: seconds of NVRTC,
registers, bytes of spills (stores and loads), loads from global memory of 16 bytes and narrower ones in the PTX, matrix
instructions, and bytes of shared memory. The exit status is 1 if a kernel does not compile or spills more than one
register.
"""

import argparse
import ctypes
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

# One register that is stored before a loop and loaded after it: 4 bytes each.
SPILL_LIMIT = 8

PACKAGES = os.path.join(sys.prefix, "lib", "python3*", "site-packages", "nvidia", "cu*")


def toolkit():
    """The folder of the wheels."""
    folders = [folder for folder in sorted(glob.glob(PACKAGES)) if glob.glob(folder + "/lib/libnvrtc.so*")]
    if not folders:
        sys.exit("no NVRTC in this Python: pip install nvidia-cuda-nvrtc nvidia-cuda-nvcc")
    return folders[-1]


def load_nvrtc(folder):
    for library in glob.glob(folder + "/lib/libnvrtc-builtins.so*"):
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    main = [name for name in glob.glob(folder + "/lib/libnvrtc.so*") if ".alt" not in name]
    return ctypes.CDLL(main[0])


def text_of(nvrtc, program, kind):
    """The PTX or the log of a program."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, text)
    return text.value.decode()


def compile_ptx(nvrtc, folder, source, arch):
    """PTX, or None and the log."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, None, 0, None, None)
    # The options of CubeCL's context.
    options = [f"--gpu-architecture={arch}", f"--include-path={folder}/include"]
    options += [f"--include-path={folder}/include/cccl", "-lineinfo"]
    encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    result = (None, text_of(nvrtc, program, "ProgramLog")) if status else (text_of(nvrtc, program, "PTX"), "")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return result


def number(pattern, text):
    return sum(int(found) for found in re.findall(pattern, text))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where LUMINA_SOURCES wrote the sources")
    parser.add_argument("--arch", action="append", help="default: sm_90a and sm_80")
    parser.add_argument("--only", default="", help="kernels whose name has this")
    parser.add_argument("--keep", help="a folder for PTX and cubins")
    arguments = parser.parse_args()
    sources = sorted(glob.glob(os.path.join(arguments.folder, f"*{arguments.only}*.cu")))
    if not sources:
        sys.exit(f"no *.cu in {arguments.folder}")
    folder = toolkit()
    nvrtc = load_nvrtc(folder)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        keep = arguments.keep or temporary
        os.makedirs(keep, exist_ok=True)
        print("| kernel | arch | NVRTC s | registers | spills | 16-byte loads | narrower | mma | shared |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for path in sources:
            name = os.path.basename(path)[:-3]
            with open(path, "rb") as file:
                source = file.read()
            for arch in arguments.arch or ["sm_90a", "sm_80"]:
                start = time.time()
                ptx, log = compile_ptx(nvrtc, folder, source, arch)
                seconds = time.time() - start
                if ptx is None:
                    print(f"{name} for {arch} does not compile:\n{log[:2000]}")
                    failed = True
                    continue
                base = os.path.join(keep, f"{name}.{arch}")
                with open(base + ".ptx", "w") as file:
                    file.write(ptx)
                command = [folder + "/bin/ptxas", f"-arch={arch}", "-v", base + ".ptx", "-o", base + ".cubin"]
                assembled = subprocess.run(command, capture_output=True, text=True)
                report = assembled.stderr
                if assembled.returncode:
                    print(f"{name} for {arch} is not assembled:\n{report[:2000]}")
                    failed = True
                    continue
                spills = number(r"(\d+) bytes spill", report)
                failed = failed or spills > SPILL_LIMIT
                wide = len(re.findall(r"ld\.global[.a-z:0-9]*\.v4\.[bfus]32", ptx))
                wide += len(re.findall(r"ld\.global[.a-z:0-9]*\.v2\.[bfus]64", ptx))
                loads = len(re.findall(r"ld\.global", ptx))
                registers = number(r"Used (\d+) registers", report)
                products = len(re.findall(r"mma\.sync", ptx))
                shared = number(r"// shared memory: (\d+) bytes", source.decode())
                cells = [name, arch, f"{seconds:.2f}", registers, spills, wide, loads - wide, products, shared]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
