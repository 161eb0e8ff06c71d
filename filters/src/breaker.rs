//! The breaker of one endpoint: closed, open, probing (Linkerd's unified breaker).
