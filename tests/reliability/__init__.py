"""Threads, forks, crashes and long runs: scripts at full length, and short tests of what they promise."""
