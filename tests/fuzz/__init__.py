"""A fuzzer for every public function: hostile arrays and nonsense arguments against independent answers.

::

    python -m tests.fuzz --cases 100000 --seed 0

`arrays` makes values, options and hostile memory; `guards` puts guard bytes and guard pages around every buffer;
`check` runs one case and judges it; `operations`, `tensors`, `methods`, `layers` and `training` hold the table, one
line a function, and `draws` the arguments that make sense; `runner` runs many cases in a child process, where a crash
or a hang is a finding.
"""
