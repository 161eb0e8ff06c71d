//! The agent as a process: started, probed, adopted, restarted, measured and stopped by its sidecar.
