//! A whole small mesh in one process: simulated network and clock, reproducible from a seed.
