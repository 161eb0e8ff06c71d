//! Sidecar, as Istio defines it.

use super::{Bool, ConnectionPoolSpec, DestinationSpec, Int, LabelsSpec, List, One, Text, object, words};

object! {
    /// Scope and limits of a sidecar.
    struct SidecarSpec<'n> "Sidecar" {
        /// The workloads that it is for.
        workload_selector = "workloadSelector": LabelsSpec<'n>;
        /// Ports that it serves.
        ingress = "ingress": List<IngressSpec<'n>>, later;
        /// What it may reach.
        egress = "egress": List<EgressSpec<'n>>;
        /// Limits towards the agent.
        inbound_connection_pool = "inboundConnectionPool": ConnectionPoolSpec<'n>;
        /// What happens to calls to unknown destinations.
        outbound_traffic_policy = "outboundTrafficPolicy": OutboundSpec<'n>;
    }

    /// A port that a sidecar serves.
    struct IngressSpec<'n> "IstioIngressListener" {
        /// The port.
        port = "port": SidecarPortSpec<'n>, required;
        /// Address to bind.
        bind = "bind": Text<'n>;
        /// How traffic gets there.
        capture_mode = "captureMode": One<'n, CaptureMode>;
        /// `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
        default_endpoint = "defaultEndpoint": Text<'n>;
        /// TLS towards callers outside the mesh.
        tls = "tls": ServerTlsSpec<'n>;
        /// Limits.
        connection_pool = "connectionPool": ConnectionPoolSpec<'n>;
    }

    /// What a sidecar may reach.
    struct EgressSpec<'n> "IstioEgressListener" {
        /// The port.
        port = "port": SidecarPortSpec<'n>, later;
        /// Address to bind.
        bind = "bind": Text<'n>, later;
        /// How traffic gets there.
        capture_mode = "captureMode": One<'n, CaptureMode>, later;
        /// `namespace/host`.
        hosts = "hosts": List<Text<'n>>, required;
    }

    /// A port of a sidecar.
    struct SidecarPortSpec<'n> "SidecarPort" {
        /// Number.
        number = "number": Int<'n>;
        /// Protocol.
        protocol = "protocol": Text<'n>;
        /// Name.
        name = "name": Text<'n>;
        /// Without effect in a Sidecar.
        target_port = "targetPort": Int<'n>;
    }

    /// What happens to calls to unknown destinations.
    struct OutboundSpec<'n> "OutboundTrafficPolicy" {
        /// Whether they pass.
        mode = "mode": One<'n, OutboundWord>;
        /// Where they are sent.
        egress_proxy = "egressProxy": DestinationSpec<'n>, later;
    }

    /// TLS towards callers outside the mesh.
    struct ServerTlsSpec<'n> "ServerTLSSettings" {
        /// Redirect plaintext.
        https_redirect = "httpsRedirect": Bool<'n>;
        /// How TLS is used.
        mode = "mode": One<'n, ServerTlsMode>;
        /// Path of the certificate.
        server_certificate = "serverCertificate": Text<'n>;
        /// Path of the key.
        private_key = "privateKey": Text<'n>;
        /// Path of the authorities' certificates.
        ca_certificates = "caCertificates": Text<'n>;
        /// Path of the revocation list.
        ca_crl = "caCrl": Text<'n>;
        /// Name of a secret.
        credential_name = "credentialName": Text<'n>;
        /// Names of secrets.
        credential_names = "credentialNames": List<Text<'n>>;
        /// Name of a secret with the authorities' certificates.
        ca_cert_credential_name = "caCertCredentialName": Text<'n>;
        /// Certificates.
        tls_certificates = "tlsCertificates": List<TlsCertificateSpec<'n>>;
        /// Names of which the peer must have one.
        subject_alt_names = "subjectAltNames": List<Text<'n>>;
        /// Hashes of keys that are accepted.
        verify_certificate_spki = "verifyCertificateSpki": List<Text<'n>>;
        /// Hashes of certificates that are accepted.
        verify_certificate_hash = "verifyCertificateHash": List<Text<'n>>;
        /// Oldest version.
        min_protocol_version = "minProtocolVersion": One<'n, TlsVersion>;
        /// Newest version.
        max_protocol_version = "maxProtocolVersion": One<'n, TlsVersion>;
        /// Cipher suites.
        cipher_suites = "cipherSuites": List<Text<'n>>;
        /// Elliptic curves.
        ecdh_curves = "ecdhCurves": List<Text<'n>>;
        /// Do not verify the peer.
        insecure_skip_verify = "insecureSkipVerify": Bool<'n>;
    }

    /// A certificate.
    struct TlsCertificateSpec<'n> "TLSCertificate" {
        /// Path of the certificate.
        server_certificate = "serverCertificate": Text<'n>;
        /// Path of the key.
        private_key = "privateKey": Text<'n>;
        /// Path of the authorities' certificates.
        ca_certificates = "caCertificates": Text<'n>;
    }
}

words! {
    /// How traffic gets to a listener.
    enum CaptureMode {
        /// As the environment does it.
        Default = "DEFAULT",
        /// By redirection.
        Iptables = "IPTABLES",
        /// By address.
        None = "NONE",
    }

    /// What happens to calls to unknown destinations.
    enum OutboundWord {
        /// They are refused.
        RegistryOnly = "REGISTRY_ONLY",
        /// They pass.
        AllowAny = "ALLOW_ANY",
    }

    /// How TLS is used.
    enum ServerTlsMode {
        /// Passed through.
        Passthrough = "PASSTHROUGH",
        /// The server proves who it is.
        Simple = "SIMPLE",
        /// Both do.
        Mutual = "MUTUAL",
        /// Passed through by name.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// Both do, with the mesh's certificates.
        IstioMutual = "ISTIO_MUTUAL",
        /// The client may.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }

    /// Version of TLS.
    enum TlsVersion {
        /// The best.
        Auto = "TLS_AUTO",
        /// 1.0
        V1_0 = "TLSV1_0",
        /// 1.1
        V1_1 = "TLSV1_1",
        /// 1.2
        V1_2 = "TLSV1_2",
        /// 1.3
        V1_3 = "TLSV1_3",
    }
}
