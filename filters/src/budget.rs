//! The retry budget of a cluster: how many tries beyond the first may be active (Envoy's 20 %, at least 3).
