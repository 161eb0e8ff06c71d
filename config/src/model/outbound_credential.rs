//! OutboundCredential: what the sidecar shows to a host on its agent's behalf.

use std::time::Duration;

use super::{Host, Meta, ROOT_NAMESPACES, StringMap, includes};

/// What is shown to whom.
#[derive(Debug, Clone)]
pub struct OutboundCredential {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// To whom: names, and `*.` before a name of at least two labels.
    pub hosts: Vec<Host>,
    /// Whose sidecars show it; empty: all.
    pub selector: StringMap,
    /// Over plaintext too, and over TLS that is not verified.
    pub insecure: bool,
    /// What it is.
    pub secret: Secret,
}

/// A secret, or where one is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// What a file has.
    Key {
        /// Where it is shown.
        place: KeyPlace,
        /// What stands before it.
        prefix: String,
        /// The file.
        file: String,
    },
    /// User name and password (RFC 7617).
    Basic {
        /// The user name, or the file that has it.
        username: Result<String, String>,
        /// The file that has the password.
        password_file: String,
    },
    /// A token of the sidecar's own.
    Client(TokenEndpoint),
    /// A token for another.
    Exchange(TokenEndpoint, Exchange),
}

/// Where a key is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In this header, in lower case.
    Header(String),
    /// In this parameter of the query.
    Query(String),
}

/// Who gives tokens, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// Its URL.
    pub url: String,
    /// Who asks.
    pub client: Option<OAuthClient>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// For whom the token is.
    pub audience: Option<String>,
    /// The URI of the service that the token is for (RFC 8707, RFC 8693).
    pub resource: Option<String>,
    /// A file with root certificates instead of the system's.
    pub ca_certificates: Option<String>,
    /// For one request, 1 ms to 1 min.
    pub timeout: Duration,
}

/// Who asks for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// How it proves that it is this one.
    pub proof: ClientProof,
}

/// How a client proves itself to a token endpoint (RFC 6749 section 2.3, RFC 7523).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// `client_secret_basic`: by HTTP Basic with the secret of this file.
    Basic(String),
    /// `client_secret_post`: in the form, with the secret of this file.
    Form(String),
    /// `private_key_jwt`: by a token that it signs.
    Key {
        /// The file that has the key.
        file: String,
        /// `kid` of the token.
        id: Option<String>,
    },
}

/// What RFC 8693 adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The file that has the token to exchange; `None`: it is the inbound call's.
    pub subject_file: Option<String>,
    /// Its type.
    pub subject_type: String,
    /// The file that has the token of who acts, and its type.
    pub actor: Option<(String, String)>,
    /// The type of the new token.
    pub requested_type: Option<String>,
}

impl OutboundCredential {
    /// Whether the sidecar of such a workload shows it.
    pub fn is_for(&self, namespace: &str, labels: &StringMap) -> bool {
        let own = self.meta.namespace();
        (own == namespace || ROOT_NAMESPACES.contains(&own)) && includes(labels, &self.selector)
    }
}
