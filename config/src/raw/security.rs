//! PeerAuthentication, AuthorizationPolicy and RequestAuthentication, as Istio defines them.

use super::{Bool, List, Map, One, SelectorSpec, Text, Time, object, words};

object! {
    /// Whether peers must speak mTLS.
    struct PeerAuthenticationSpec<'n> "PeerAuthentication" {
        /// The workloads that it is for.
        selector = "selector": SelectorSpec<'n>;
        /// The mode.
        mtls = "mtls": MtlsSpec<'n>;
        /// The mode of single ports.
        port_level_mtls = "portLevelMtls": Map<'n, MtlsSpec<'n>>;
    }

    /// Whether peers must speak mTLS.
    struct MtlsSpec<'n> "MutualTLS" {
        /// The mode.
        mode = "mode": One<'n, MtlsWord>;
    }

    /// An object by name.
    struct TargetRefSpec<'n> "PolicyTargetReference" {
        /// API group.
        group = "group": Text<'n>;
        /// Kind.
        kind = "kind": Text<'n>, required;
        /// Name.
        name = "name": Text<'n>, required;
        /// Namespace.
        namespace = "namespace": Text<'n>;
    }

    /// Who may call what.
    struct AuthorizationPolicySpec<'n> "AuthorizationPolicy" {
        /// The workloads that it is for.
        selector = "selector": SelectorSpec<'n>;
        /// The object that it is for (older form).
        target_ref = "targetRef": TargetRefSpec<'n>;
        /// The objects that it is for.
        target_refs = "targetRefs": List<TargetRefSpec<'n>>;
        /// Rules; any one is enough.
        rules = "rules": List<RuleSpec<'n>>;
        /// What a matching rule does (ALLOW by default).
        action = "action": One<'n, ActionWord>;
        /// The provider of CUSTOM.
        provider = "provider": ProviderSpec<'n>;
    }

    /// A provider by name.
    struct ProviderSpec<'n> "ExtensionProvider" {
        /// Its name.
        name = "name": Text<'n>;
    }

    /// From any of, to any of, when all of.
    struct RuleSpec<'n> "Rule" {
        /// Callers.
        from = "from": List<FromSpec<'n>>;
        /// Operations.
        to = "to": List<ToSpec<'n>>;
        /// Conditions.
        when = "when": List<ConditionSpec<'n>>;
    }

    /// A caller.
    struct FromSpec<'n> "From" {
        /// The caller.
        source = "source": SourceSpec<'n>;
    }

    /// An operation.
    struct ToSpec<'n> "To" {
        /// The operation.
        operation = "operation": OperationSpec<'n>;
    }

    /// A caller; all that is written must hold.
    struct SourceSpec<'n> "Source" {
        /// Identities from certificates.
        principals = "principals": List<Text<'n>>;
        /// None of these.
        not_principals = "notPrincipals": List<Text<'n>>;
        /// Identities from tokens.
        request_principals = "requestPrincipals": List<Text<'n>>;
        /// None of these.
        not_request_principals = "notRequestPrincipals": List<Text<'n>>;
        /// Namespaces.
        namespaces = "namespaces": List<Text<'n>>;
        /// None of these.
        not_namespaces = "notNamespaces": List<Text<'n>>;
        /// Service accounts.
        service_accounts = "serviceAccounts": List<Text<'n>>;
        /// None of these.
        not_service_accounts = "notServiceAccounts": List<Text<'n>>;
        /// Addresses of the peer.
        ip_blocks = "ipBlocks": List<Text<'n>>;
        /// None of these.
        not_ip_blocks = "notIpBlocks": List<Text<'n>>;
        /// Addresses of the original client.
        remote_ip_blocks = "remoteIpBlocks": List<Text<'n>>;
        /// None of these.
        not_remote_ip_blocks = "notRemoteIpBlocks": List<Text<'n>>;
        /// Trust domains.
        trust_domains = "trustDomains": List<Text<'n>>;
        /// None of these.
        not_trust_domains = "notTrustDomains": List<Text<'n>>;
    }

    /// An operation; all that is written must hold.
    struct OperationSpec<'n> "Operation" {
        /// Hosts.
        hosts = "hosts": List<Text<'n>>;
        /// None of these.
        not_hosts = "notHosts": List<Text<'n>>;
        /// Ports.
        ports = "ports": List<Text<'n>>;
        /// None of these.
        not_ports = "notPorts": List<Text<'n>>;
        /// Methods.
        methods = "methods": List<Text<'n>>;
        /// None of these.
        not_methods = "notMethods": List<Text<'n>>;
        /// Paths.
        paths = "paths": List<Text<'n>>;
        /// None of these.
        not_paths = "notPaths": List<Text<'n>>;
    }

    /// A condition on an attribute.
    struct ConditionSpec<'n> "Condition" {
        /// The attribute, such as `request.headers[x]`; also `experimental.envoy.filters.http.ext_authz[x]`, what the authorizer of a policy with
        /// the action CUSTOM says (`dynamic_metadata`), in the other actions.
        key = "key": Text<'n>, required;
        /// One of these.
        values = "values": List<Text<'n>>;
        /// None of these.
        not_values = "notValues": List<Text<'n>>;
    }

    /// Whose tokens are valid.
    struct RequestAuthenticationSpec<'n> "RequestAuthentication" {
        /// The workloads that it is for.
        selector = "selector": SelectorSpec<'n>;
        /// The object that it is for (older form).
        target_ref = "targetRef": TargetRefSpec<'n>;
        /// The objects that it is for.
        target_refs = "targetRefs": List<TargetRefSpec<'n>>;
        /// Issuers; a token of any one is enough. Their clocks may be off by 60 s (Envoy's default): so long a token is good before `nbf` and
        /// `iat`, and after `exp`. One without `exp` does not end.
        jwt_rules = "jwtRules": List<JwtRuleSpec<'n>>;
    }

    /// An issuer and where its tokens are found.
    struct JwtRuleSpec<'n> "JWTRule" {
        /// `iss`.
        issuer = "issuer": Text<'n>;
        /// `aud`, any one.
        audiences = "audiences": List<Text<'n>>;
        /// Where the keys are. A host and port that a ServiceEntry or an agent has are reached as calls to them are (by its endpoints, by mTLS
        /// or its DestinationRule's `tls`); others by DNS, with the roots of `--issuer-ca` or the system's.
        jwks_uri = "jwksUri": Text<'n>;
        /// Old spelling of `jwksUri`.
        jwks_uri_old = "jwks_uri": Text<'n>, deprecated("jwksUri");
        /// The keys themselves.
        jwks = "jwks": Text<'n>;
        /// Headers that hold the token.
        from_headers = "fromHeaders": List<JwtHeaderSpec<'n>>;
        /// Query parameters that hold the token.
        from_params = "fromParams": List<Text<'n>>;
        /// Cookies that hold the token.
        from_cookies = "fromCookies": List<Text<'n>>;
        /// Header for the payload.
        output_payload_to_header = "outputPayloadToHeader": Text<'n>;
        /// The token is sent on.
        forward_original_token = "forwardOriginalToken": Bool<'n>;
        /// Headers for claims.
        output_claim_to_headers = "outputClaimToHeaders": List<ClaimToHeaderSpec<'n>>;
        /// For fetching keys (5s by default).
        timeout = "timeout": Time<'n>;
        /// Claims that are lists separated by spaces.
        space_delimited_claims = "spaceDelimitedClaims": List<Text<'n>>;
        /// Whether a request without a token of this rule passes (OPTIONAL, the default). Several that are REQUIRED want one each, at
        /// a place of its own; the first rule's says who calls.
        presence = "presence": One<'n, PresenceWord>;
    }

    /// A header that holds the token.
    struct JwtHeaderSpec<'n> "JWTHeader" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// What comes before the token.
        prefix = "prefix": Text<'n>;
    }

    /// A header for a claim.
    struct ClaimToHeaderSpec<'n> "ClaimToHeader" {
        /// The header.
        header = "header": Text<'n>, required;
        /// The claim.
        claim = "claim": Text<'n>, required;
    }
}

words! {
    /// Whether peers must speak mTLS.
    enum MtlsWord {
        /// As inherited.
        Unset = "UNSET",
        /// Plaintext.
        Disable = "DISABLE",
        /// Either.
        Permissive = "PERMISSIVE",
        /// mTLS only.
        Strict = "STRICT",
    }

    /// Whether a token must be there.
    enum PresenceWord {
        /// It need not.
        Optional = "OPTIONAL",
        /// It must.
        Required = "REQUIRED",
    }

    /// What a matching rule does.
    enum ActionWord {
        /// Allow.
        Allow = "ALLOW",
        /// Deny.
        Deny = "DENY",
        /// Log.
        Audit = "AUDIT",
        /// Ask a provider.
        Custom = "CUSTOM",
    }
}
