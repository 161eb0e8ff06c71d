//! Keys of token issuers (JWKS), fetched and kept in the background, and tokens that were verified before.

/// What is known of issuers.
#[derive(Debug, Default)]
pub struct Tokens {}
