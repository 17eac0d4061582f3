"""Compiles CUDA source with NVRTC, no GPU needed: nvrtc.py LIBRARY SOURCE OUTPUT ARCHITECTURE [OPTION ...]

Writes PTX to OUTPUT (nothing for a real architecture such as sm_90, which is compiled to count its registers) and the
compiler's log to standard output.
"""

import ctypes
import os
import sys


def main():
    library, source, output, architecture, *options = sys.argv[1:]
    nvrtc = ctypes.CDLL(library)
    program = ctypes.c_void_p()

    def text(size_of, get):
        size = ctypes.c_size_t()
        size_of(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        get(program, buffer)
        return buffer.value

    def check(code):
        if code:
            log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog) if program else b""
            sys.exit(f"NVRTC error {code}\n{log.decode()}")

    with open(source, "rb") as file:
        content = file.read()
    name = os.path.basename(source).encode()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), content, name, 0, None, None))
    words = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
    check(nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words)))
    print(text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode())
    if architecture.startswith("compute_"):
        with open(output, "wb") as file:
            file.write(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX))


main()
