//! OutboundCredential: our own kind, in Istio's style of keys.

use super::{Bool, List, One, Raw, Reader, SelectorSpec, Shape, Text, Time, object, words};
use crate::yaml::Node;

object! {
    /// What the sidecar shows to hosts on its agent's behalf, so that the agent never holds the secret. It replaces what the agent sent
    /// in the same place. Secrets are in files on the sidecar's machine, never in documents, and are read anew when they change. Without
    /// the secret, or a token by it, calls to these hosts are answered 503 `credential-unavailable`. One of `apiKey`, `bearer`, `basic`,
    /// `oauth2` and `exchange` is written. A tunnel (`CONNECT`) carries what the agent encrypts itself: nothing can be shown in it. A mirrored
    /// copy shows what the host that it goes to gets, never what the call has shown; an active health check does with `credential=on`.
    struct OutboundCredentialSpec<'n> "OutboundCredential" {
        /// The hosts: `api.example.com`, or `*.example.com` for all names below it. Both the host that is connected to and the one that
        /// the request names have to be among them.
        hosts = "hosts": List<Text<'n>>, required;
        /// The workloads whose sidecars show it; all of the namespace by default, all of the mesh in a root namespace
        /// (`istio-system`, `pilotfish-system`). Of several for one host, the one that names it most exactly is shown.
        selector = "selector": SelectorSpec<'n>;
        /// Also over plaintext, and over TLS that is not verified. False by default: calls are refused that would carry the secret so,
        /// except to loopback addresses.
        insecure = "insecure": Bool<'n>;
        /// A key.
        api_key = "apiKey": ApiKeySpec<'n>, one_of("credential");
        /// `authorization: Bearer TOKEN`, with a token from a file.
        bearer = "bearer": BearerSpec<'n>, one_of("credential");
        /// `authorization: Basic ...` (RFC 7617).
        basic = "basic": BasicSpec<'n>, one_of("credential");
        /// A token of the sidecar's own by OAuth 2.0 client credentials (RFC 6749 section 4.4). It is obtained at the first call, kept, and
        /// renewed when 80 % of its life is over.
        oauth2 = "oauth2": OAuth2Spec<'n>, one_of("credential");
        /// A token on behalf of whoever made the inbound call that the agent serves (RFC 8693).
        exchange = "exchange": ExchangeSpec<'n>, one_of("credential");
    }

    /// A key from a file, in a header or in the query.
    struct ApiKeySpec<'n> "ApiKey" {
        /// The header (`x-api-key` by default).
        header = "header": Text<'n>, one_of("place");
        /// The parameter of the query, instead of a header.
        query = "query": Text<'n>, one_of("place");
        /// What stands before the key, such as `Key ` (nothing by default).
        prefix = "prefix": Text<'n>;
        /// The file that has the key.
        file = "file": Text<'n>, required;
        /// Refused: a document is no place for a secret. `file` names one that is.
        value = "value": Inline<'n>;
        /// Refused, as `value`.
        key = "key": Inline<'n>;
    }

    /// A token from a file.
    struct BearerSpec<'n> "BearerToken" {
        /// The file that has the token.
        file = "file": Text<'n>, required;
        /// Refused: a document is no place for a secret. `file` names one that is.
        token = "token": Inline<'n>;
        /// Refused, as `token`.
        value = "value": Inline<'n>;
    }

    /// User name and password.
    struct BasicSpec<'n> "BasicCredential" {
        /// The user name; or `usernameFile`.
        username = "username": Text<'n>, one_of("username");
        /// The file that has the user name.
        username_file = "usernameFile": Text<'n>, one_of("username");
        /// The file that has the password.
        password_file = "passwordFile": Text<'n>, required;
        /// Refused: a document is no place for a secret. `passwordFile` names one that is.
        password = "password": Inline<'n>;
    }

    /// OAuth 2.0 client credentials.
    struct OAuth2Spec<'n> "OAuth2Client" {
        /// The token endpoint; `https`. A host and port that a ServiceEntry or an agent has are reached as calls to them are: by its
        /// endpoints, by mTLS or its DestinationRule's `tls`.
        token_url = "tokenUrl": Text<'n>, required;
        /// The client's id.
        client_id = "clientId": Text<'n>, required;
        /// The file that has the client's secret.
        client_secret_file = "clientSecretFile": Text<'n>, one_of("proof");
        /// The file that has the client's private key (PEM: P-256, P-384, RSA or Ed25519). It proves itself by a token of a minute's life that
        /// it signs with ES256, ES384, RS256 or EdDSA (`private_key_jwt`, RFC 7523).
        private_key_file = "privateKeyFile": Text<'n>, one_of("proof");
        /// `kid` of those tokens; with `privateKeyFile`.
        key_id = "keyId": Text<'n>;
        /// The scopes to ask for.
        scopes = "scopes": List<Text<'n>>;
        /// The `audience` parameter, as some authorization servers want it.
        audience = "audience": Text<'n>;
        /// The URI of the service that the token is for, as others want it (RFC 8707).
        resource = "resource": Text<'n>;
        /// How the client proves itself: `header` (HTTP Basic, the default, as RFC 6749 asks for) or `body` (`client_id` and
        /// `client_secret` in the form).
        auth_style = "authStyle": One<'n, AuthStyleWord>;
        /// A file with the root certificates of the token endpoint (PEM; by default those of its DestinationRule, else the
        /// system's).
        ca_certificates = "caCertificates": Text<'n>;
        /// For one request to the token endpoint, 1ms to 1m (5s by default). The first call waits so long.
        timeout = "timeout": Time<'n>;
        /// Refused: a document is no place for a secret. `clientSecretFile` names one that is.
        client_secret = "clientSecret": Inline<'n>;
        /// Refused, as `clientSecret`; `privateKeyFile` names one that is.
        private_key = "privateKey": Inline<'n>;
    }

    /// RFC 8693 token exchange.
    struct ExchangeSpec<'n> "TokenExchange" {
        /// The token endpoint; `https`. A host and port that a ServiceEntry or an agent has are reached as calls to them are: by its
        /// endpoints, by mTLS or its DestinationRule's `tls`.
        token_url = "tokenUrl": Text<'n>, required;
        /// The file that has the token to exchange. By default it is the valid token that the inbound call brought which the agent
        /// serves, by RequestAuthentication; a call that belongs to no such call, or not certainly to one, is refused.
        subject_token_file = "subjectTokenFile": Text<'n>;
        /// Its type (`urn:ietf:params:oauth:token-type:access_token` by default).
        subject_token_type = "subjectTokenType": Text<'n>;
        /// The file that has the token of who acts; none by default.
        actor_token_file = "actorTokenFile": Text<'n>;
        /// Its type (`urn:ietf:params:oauth:token-type:jwt` by default).
        actor_token_type = "actorTokenType": Text<'n>;
        /// The name of the service that the new token is for.
        audience = "audience": Text<'n>;
        /// The URI of the service that the new token is for.
        resource = "resource": Text<'n>;
        /// The scopes to ask for.
        scopes = "scopes": List<Text<'n>>;
        /// The type of the new token (the endpoint's choice by default).
        requested_token_type = "requestedTokenType": Text<'n>;
        /// The client's id, when the endpoint wants to know who asks; with `clientSecretFile` or `privateKeyFile`.
        client_id = "clientId": Text<'n>;
        /// The file that has the client's secret.
        client_secret_file = "clientSecretFile": Text<'n>, one_of("proof");
        /// The file that has the client's private key, as in `oauth2`.
        private_key_file = "privateKeyFile": Text<'n>, one_of("proof");
        /// `kid` of the tokens that it signs; with `privateKeyFile`.
        key_id = "keyId": Text<'n>;
        /// How the client proves itself: `header` (the default) or `body`.
        auth_style = "authStyle": One<'n, AuthStyleWord>;
        /// A file with the root certificates of the token endpoint (PEM; by default those of its DestinationRule, else the
        /// system's).
        ca_certificates = "caCertificates": Text<'n>;
        /// For one request to the token endpoint, 1ms to 1m (5s by default). The first call waits so long.
        timeout = "timeout": Time<'n>;
        /// Refused: a document is no place for a secret. `clientSecretFile` names one that is.
        client_secret = "clientSecret": Inline<'n>;
        /// Refused, as `clientSecret`; `privateKeyFile` names one that is.
        private_key = "privateKey": Inline<'n>;
        /// Refused: a document is no place for a secret. `subjectTokenFile` names one that is.
        subject_token = "subjectToken": Inline<'n>;
        /// Refused: a document is no place for a secret. `actorTokenFile` names one that is.
        actor_token = "actorToken": Inline<'n>;
    }
}

words! {
    /// How a client proves itself to a token endpoint.
    enum AuthStyleWord {
        /// HTTP Basic.
        Header = "header",
        /// In the form.
        Body = "body",
    }
}

/// A secret by mistake: where it stands, never what it is.
#[derive(Debug, Clone, Copy)]
pub struct Inline<'n>(
    /// Where it is written.
    pub Node<'n>,
);

impl<'n> Raw<'n> for Inline<'n> {
    const SHAPE: Shape = Shape::Any;
    fn read(node: Node<'n>, _: &mut Reader) -> Option<Self> {
        Some(Inline(node))
    }
}
