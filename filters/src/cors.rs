//! CORS: preflights are answered here, and answers get their headers.

/// The cross-origin rules of a rule.
#[derive(Debug, Clone)]
pub struct Cors {}
