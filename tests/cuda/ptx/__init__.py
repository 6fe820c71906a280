"""An interpreter of PTX: runs the code that the compiler really produced, on a machine without a GPU.

Every thread of the grid is a lane of NumPy arrays. It checks what a GPU does not: accesses outside of buffers,
misaligned ones, registers and shared memory that nobody wrote, races in shared memory, divergent barriers. Asynchronous
copies land only where the program waits for them. An opcode or modifier that it does not know is an error.
"""
