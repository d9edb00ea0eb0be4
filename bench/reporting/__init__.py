"""Reports of a run of the benchmarks, made from pytest-benchmark's JSON and nothing else."""
