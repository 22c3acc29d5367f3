//! Real packet drops for tests, scenarios and benchmarks: network namespaces and load generators.
