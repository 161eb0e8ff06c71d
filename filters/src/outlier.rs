//! Outlier detection: endpoints that fail are put aside for a while (Envoy's).
