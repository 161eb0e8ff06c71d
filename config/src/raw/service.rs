//! ServiceEntry, WorkloadEntry and WorkloadGroup, as Istio defines them.

use super::{Any, Int, List, Map, One, Signed, Text, TextMap, object, words};

object! {
    /// A service and its endpoints.
    struct ServiceEntrySpec<'n> "ServiceEntry" {
        /// Its hosts.
        hosts = "hosts": List<Text<'n>>, required;
        /// Its virtual addresses, IP or CIDR.
        addresses = "addresses": List<Text<'n>>;
        /// Its ports.
        ports = "ports": List<ServicePortSpec<'n>>;
        /// Outside the mesh (the default) or inside.
        location = "location": One<'n, LocationWord>;
        /// How endpoints are found (NONE by default).
        resolution = "resolution": One<'n, ResolutionWord>;
        /// Its endpoints.
        endpoints = "endpoints": List<WorkloadSpec<'n>>;
        /// Labels of the WorkloadEntries of its namespace that are its endpoints.
        workload_selector = "workloadSelector": LabelsSpec<'n>;
        /// Namespaces that see it: `.`, `*` (the default), `~`, or names.
        export_to = "exportTo": List<Text<'n>>;
        /// Names of which an endpoint's certificate must have one.
        subject_alt_names = "subjectAltNames": List<Text<'n>>;
    }

    /// A port of a service.
    struct ServicePortSpec<'n> "ServicePort" {
        /// The number that callers use.
        number = "number": Int<'n>, required;
        /// HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, MYSQL, REDIS; told from the first bytes when absent.
        protocol = "protocol": Text<'n>;
        /// Its name; endpoints refer to it.
        name = "name": Text<'n>, required;
        /// The number at the endpoints, if it differs.
        target_port = "targetPort": Int<'n>;
    }

    /// An endpoint.
    struct WorkloadSpec<'n> "WorkloadEntry" {
        /// IP address, name to look up, or `unix:///path`.
        address = "address": Text<'n>;
        /// Its ports by the service port's name.
        ports = "ports": Map<'n, Int<'n>>;
        /// Its labels. `pilotfish.dev/agent: NAME` ties it to an AgentCluster's agent, `pilotfish.dev/mesh: "true"` says
        /// that its port is its sidecar's inbound port.
        labels = "labels": TextMap<'n>;
        /// The network that it is in.
        network = "network": Text<'n>;
        /// `region/zone/subzone`.
        locality = "locality": Text<'n>;
        /// Its share (1 by default).
        weight = "weight": Int<'n>;
        /// Its service account.
        service_account = "serviceAccount": Text<'n>;
    }

    /// Workloads by labels.
    struct LabelsSpec<'n> "WorkloadSelector" {
        /// Labels that they have.
        labels = "labels": TextMap<'n>;
    }

    /// Workloads by labels.
    struct SelectorSpec<'n> "WorkloadSelector" {
        /// Labels that they have.
        match_labels = "matchLabels": TextMap<'n>;
    }

    /// A template of workloads.
    struct WorkloadGroupSpec<'n> "WorkloadGroup" {
        /// Labels and annotations for its workloads.
        metadata = "metadata": GroupMetadataSpec<'n>;
        /// What its workloads have in common.
        template = "template": WorkloadSpec<'n>, required;
        /// How readiness is probed.
        probe = "probe": ProbeSpec<'n>;
    }

    /// Labels and annotations for a group's workloads.
    struct GroupMetadataSpec<'n> "ObjectMeta" {
        /// Labels.
        labels = "labels": TextMap<'n>;
        /// Annotations.
        annotations = "annotations": TextMap<'n>;
    }

    /// How readiness is probed.
    struct ProbeSpec<'n> "ReadinessProbe" {
        /// Seconds before the first (0 by default).
        initial_delay_seconds = "initialDelaySeconds": Signed<'n>;
        /// Seconds for an answer (1 by default).
        timeout_seconds = "timeoutSeconds": Signed<'n>;
        /// Seconds between probes (10 by default).
        period_seconds = "periodSeconds": Signed<'n>;
        /// Good answers in a row to be ready (1 by default).
        success_threshold = "successThreshold": Signed<'n>;
        /// Bad answers in a row to be not ready (3 by default).
        failure_threshold = "failureThreshold": Signed<'n>;
        /// By an HTTP GET.
        http_get = "httpGet": HttpGetSpec<'n>, one_of("probe");
        /// By a TCP connection.
        tcp_socket = "tcpSocket": TcpSocketSpec<'n>, one_of("probe");
        /// By a command.
        exec = "exec": ExecSpec<'n>, one_of("probe");
        /// By gRPC health.
        grpc = "grpc": GrpcProbeSpec<'n>, one_of("probe");
    }

    /// By an HTTP GET.
    struct HttpGetSpec<'n> "HTTPHealthCheckConfig" {
        /// Path.
        path = "path": Text<'n>;
        /// Port.
        port = "port": Int<'n>, required;
        /// Host.
        host = "host": Text<'n>;
        /// `HTTP` or `HTTPS`.
        scheme = "scheme": Text<'n>;
        /// Headers.
        http_headers = "httpHeaders": List<ProbeHeaderSpec<'n>>;
    }

    /// A header of a probe.
    struct ProbeHeaderSpec<'n> "HTTPHeader" {
        /// Name.
        name = "name": Text<'n>;
        /// Value.
        value = "value": Text<'n>;
    }

    /// By a TCP connection.
    struct TcpSocketSpec<'n> "TCPHealthCheckConfig" {
        /// Host.
        host = "host": Text<'n>;
        /// Port.
        port = "port": Int<'n>, required;
    }

    /// By a command.
    struct ExecSpec<'n> "ExecHealthCheckConfig" {
        /// The command and its arguments.
        command = "command": List<Text<'n>>, required;
    }

    /// By gRPC health.
    struct GrpcProbeSpec<'n> "GrpcHealthCheckConfig" {
        /// Port.
        port = "port": Int<'n>;
        /// Service.
        service = "service": Text<'n>;
    }

    /// What Istio reports about a ServiceEntry; read and not used.
    struct ServiceEntryStatusSpec<'n> "ServiceEntryStatus" {
        /// Conditions.
        conditions = "conditions": Any;
        /// Messages.
        validation_messages = "validationMessages": Any;
        /// The generation that was seen.
        observed_generation = "observedGeneration": Any;
        /// Addresses that were given.
        addresses = "addresses": List<AddressStatusSpec<'n>>;
    }

    /// An address that was given.
    struct AddressStatusSpec<'n> "ServiceEntryAddress" {
        /// The address.
        value = "value": Text<'n>;
        /// The host that has it.
        host = "host": Text<'n>;
    }
}

words! {
    /// In the mesh or not.
    enum LocationWord {
        /// Outside.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }

    /// How endpoints are found.
    enum ResolutionWord {
        /// The address that the caller asked for.
        None = "NONE",
        /// The addresses of the endpoints.
        Static = "STATIC",
        /// Names are looked up.
        Dns = "DNS",
        /// Names are looked up, one address at a time.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// The name of each request is looked up.
        DynamicDns = "DYNAMIC_DNS",
    }
}
