//! Settings of how requests are read before anything is decided on them.

use clap::{Args, ValueEnum};
use pilotfish_filters::normalize::Normalization;

/// How requests are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authorization")]
pub struct ReadingSettings {
    /// How far paths are normalised, in both directions: what routes and policies decide on is what is sent upstream (Istio's
    /// pathNormalization, and Istio's default). A path with %00 is refused in all modes.
    #[arg(
        long,
        env = "PILOTFISH_PATH_NORMALIZATION",
        value_name = "MODE",
        default_value = "base",
        ignore_case = true
    )]
    pub path_normalization: PathNormalization,

    /// Proxies in front of the inbound listener whose `x-forwarded-for` is believed, callers' sidecars counted: the client's
    /// address (remoteIpBlocks, remote.ip) is the N-th from its end (Istio's numTrustedProxies). With 0 nobody is believed,
    /// sidecars neither, which pass on what their agents say, and the client is the peer of the connection.
    #[arg(long, env = "PILOTFISH_TRUSTED_HOPS", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub trusted_hops: u8,
}

/// How far paths are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PathNormalization {
    /// Not at all.
    None,
    /// `\` becomes `/`, `.` and `..` are resolved, escaped letters, digits and -._~ are decoded.
    Base,
    /// And several slashes become one.
    #[value(name = "merge-slashes", alias = "MERGE_SLASHES", alias = "merge_slashes")]
    MergeSlashes,
    /// And %2F and %5C become `/`.
    #[value(
        name = "decode-and-merge-slashes",
        alias = "DECODE_AND_MERGE_SLASHES",
        alias = "decode_and_merge_slashes"
    )]
    DecodeAndMergeSlashes,
}

impl From<PathNormalization> for Normalization {
    fn from(setting: PathNormalization) -> Self {
        match setting {
            PathNormalization::None => Normalization::None,
            PathNormalization::Base => Normalization::Base,
            PathNormalization::MergeSlashes => Normalization::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes => Normalization::DecodeAndMergeSlashes,
        }
    }
}
