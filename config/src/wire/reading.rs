//! How a sidecar reads calls, and what it does without policies: what of its flags its decisions hang on.

use serde::{Deserialize, Serialize};

/// How far a path is normalised (Istio's `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Not at all.
    None,
    /// `\` to `/`, `.` and `..` resolved, percent-encoded unreserved characters decoded (RFC 3986); Istio's default.
    #[default]
    Base,
    /// And several slashes to one.
    MergeSlashes,
    /// And `%2F`, `%5C` in either case to `/`.
    DecodeAndMergeSlashes,
}

impl Normalization {
    /// As flags have it: `merge-slashes`.
    pub const fn word(self) -> &'static str {
        match self {
            Normalization::None => "none",
            Normalization::Base => "base",
            Normalization::MergeSlashes => "merge-slashes",
            Normalization::DecodeAndMergeSlashes => "decode-and-merge-slashes",
        }
    }
}

/// Flags of a sidecar that its decisions hang on, so that others can say what it would decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// `--path-normalization`.
    pub normalization: Normalization,
    /// `--trusted-hops`.
    pub trusted_hops: u8,
    /// `--default-deny` of the sidecar itself.
    pub default_deny: bool,
}

impl Reading {
    /// Whether nothing was said: the defaults of all flags.
    pub fn is_usual(&self) -> bool {
        *self == Reading::default()
    }
}
