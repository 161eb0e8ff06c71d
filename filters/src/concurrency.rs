//! Adaptive concurrency: how many calls an endpoint takes before it slows down (Envoy's gradient).
