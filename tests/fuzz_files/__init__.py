"""Fuzzing of everything that reads files: ``python -m tests.fuzz_files --cases 100000`` prints a table.

Each mutated file is read in a child process whose memory and processor time are bounded. It must give the right
content, or an error of a documented kind that names the file: no crash, no other error, no memory beyond the file's
size times a constant. A case is told by its reader, the seed and its number, and is the same wherever it runs.
"""
