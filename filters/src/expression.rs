//! Conditions over a call, a subset of CEL with Istio's attribute names: filters of the access log and of taps.
