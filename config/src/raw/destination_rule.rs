//! DestinationRule and the policies that it is made of, as Istio defines them.

use super::{Bool, Int, List, Long, Map, Number, One, Signed, Text, TextMap, Time, object, words};
use super::{PortSelectorSpec, SelectorSpec};

object! {
    /// Load balancing, limits and subsets of one host.
    struct DestinationRuleSpec<'n> "DestinationRule" {
        /// The host; a name without a dot is a service of the resource's namespace.
        host = "host": Text<'n>, required;
        /// For every subset that does not say otherwise.
        traffic_policy = "trafficPolicy": Box<TrafficPolicySpec<'n>>;
        /// Named parts of the host's endpoints.
        subsets = "subsets": List<SubsetSpec<'n>>;
        /// Namespaces that see it: `.`, `*` (the default), or names.
        export_to = "exportTo": List<Text<'n>>;
        /// Labels of the calling workloads that use it.
        workload_selector = "workloadSelector": SelectorSpec<'n>;
    }

    /// A named part of a host's endpoints.
    struct SubsetSpec<'n> "Subset" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Labels that its endpoints have.
        labels = "labels": TextMap<'n>;
        /// What differs from the rule's policy.
        traffic_policy = "trafficPolicy": Box<TrafficPolicySpec<'n>>;
    }

    /// Settings for the traffic to a host or subset.
    struct TrafficPolicySpec<'n> "TrafficPolicy" {
        /// How an endpoint is chosen.
        load_balancer = "loadBalancer": Box<LoadBalancerSpec<'n>>;
        /// Limits of connections and requests.
        connection_pool = "connectionPool": Box<ConnectionPoolSpec<'n>>;
        /// When an endpoint is put aside.
        outlier_detection = "outlierDetection": Box<OutlierSpec<'n>>;
        /// TLS to the upstream.
        tls = "tls": Box<ClientTlsSpec<'n>>;
        /// Settings for single ports; they replace those above.
        port_level_settings = "portLevelSettings": List<PortPolicySpec<'n>>;
        /// Tunnel to the upstream.
        tunnel = "tunnel": TunnelSpec<'n>, later;
        /// PROXY protocol to the upstream.
        proxy_protocol = "proxyProtocol": ProxyProtocolSpec<'n>, later;
        /// How many retries may be active.
        retry_budget = "retryBudget": RetryBudgetSpec<'n>;
    }

    /// Settings for one port.
    struct PortPolicySpec<'n> "PortTrafficPolicy" {
        /// The service's port.
        port = "port": PortSelectorSpec<'n>, required;
        /// How an endpoint is chosen.
        load_balancer = "loadBalancer": Box<LoadBalancerSpec<'n>>;
        /// Limits of connections and requests.
        connection_pool = "connectionPool": Box<ConnectionPoolSpec<'n>>;
        /// When an endpoint is put aside.
        outlier_detection = "outlierDetection": Box<OutlierSpec<'n>>;
        /// TLS to the upstream.
        tls = "tls": Box<ClientTlsSpec<'n>>;
    }

    /// How an endpoint is chosen.
    struct LoadBalancerSpec<'n> "LoadBalancerSettings" {
        /// A simple algorithm.
        simple = "simple": One<'n, SimpleLb>, one_of("algorithm");
        /// By a hash of something in the request.
        consistent_hash = "consistentHash": Box<ConsistentHashSpec<'n>>, one_of("algorithm");
        /// By the load that endpoints report (ORCA).
        backend_utilization = "backendUtilization": BackendUtilizationSpec<'n>, one_of("algorithm"), later;
        /// Which localities are preferred.
        locality_lb_setting = "localityLbSetting": Box<LocalitySpec<'n>>, one_of("locality");
        /// Which zones are preferred.
        zone_aware_lb_setting = "zoneAwareLbSetting": ZoneAwareSpec<'n>, one_of("locality"), later;
        /// How long a new endpoint's share grows.
        warmup_duration_secs = "warmupDurationSecs": Time<'n>, deprecated("warmup: {duration: TIME}");
        /// How a new endpoint's share grows.
        warmup = "warmup": WarmupSpec<'n>;
    }

    /// By the load that endpoints report.
    struct BackendUtilizationSpec<'n> "BackendUtilization" {
        /// Percentage by which errors count as load.
        error_utilization_penalty_percent = "errorUtilizationPenaltyPercent": Int<'n>;
        /// Metrics that are load.
        metric_names = "metricNamesForComputingUtilization": List<Text<'n>>;
        /// A report older than this is forgotten.
        weight_expiration_period = "weightExpirationPeriod": Time<'n>;
        /// A first report counts after this.
        weight_stabilization_period = "weightStabilizationPeriod": Time<'n>;
        /// Between changes of weights.
        weight_update_period = "weightUpdatePeriod": Time<'n>;
    }

    /// By a hash of something in the request.
    struct ConsistentHashSpec<'n> "ConsistentHashLB" {
        /// Hash a header.
        http_header_name = "httpHeaderName": Text<'n>, one_of("hash key");
        /// Hash a cookie, issued when absent if it has a ttl.
        http_cookie = "httpCookie": HttpCookieSpec<'n>, one_of("hash key");
        /// Hash the caller's address.
        use_source_ip = "useSourceIp": Bool<'n>, one_of("hash key");
        /// Hash a query parameter.
        http_query_parameter_name = "httpQueryParameterName": Text<'n>, one_of("hash key");
        /// Points on a ring.
        ring_hash = "ringHash": RingHashSpec<'n>, one_of("hash algorithm");
        /// Maglev's table.
        maglev = "maglev": MaglevSpec<'n>, one_of("hash algorithm");
        /// At least this many points on the ring.
        minimum_ring_size = "minimumRingSize": Long<'n>, one_of("hash algorithm"),
            deprecated("ringHash: {minimumRingSize: N}");
    }

    /// A cookie to hash.
    struct HttpCookieSpec<'n> "HTTPCookie" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Its path.
        path = "path": Text<'n>;
        /// Its life time; 0s: for the browser's session.
        ttl = "ttl": Time<'n>;
        /// Further attributes when it is issued.
        attributes = "attributes": List<CookieAttributeSpec<'n>>;
    }

    /// An attribute of a cookie.
    struct CookieAttributeSpec<'n> "HTTPCookieAttribute" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Its value.
        value = "value": Text<'n>;
    }

    /// Points on a ring.
    struct RingHashSpec<'n> "RingHash" {
        /// At least this many (1024 by default).
        minimum_ring_size = "minimumRingSize": Long<'n>;
    }

    /// Maglev's table.
    struct MaglevSpec<'n> "MagLev" {
        /// Its size, a prime below 5000011 (65537 by default).
        table_size = "tableSize": Long<'n>;
    }

    /// Which localities are preferred.
    struct LocalitySpec<'n> "LocalityLoadBalancerSetting" {
        /// Shares by locality.
        distribute = "distribute": List<DistributeSpec<'n>>;
        /// Region fails over to region.
        failover = "failover": List<FailoverSpec<'n>>;
        /// Priorities by how many of these labels are equal, in order.
        failover_priority = "failoverPriority": List<Text<'n>>;
        /// false turns it off.
        enabled = "enabled": Bool<'n>;
    }

    /// Shares by locality.
    struct DistributeSpec<'n> "Distribute" {
        /// Callers in this locality, `region/zone/*`.
        from = "from": Text<'n>;
        /// Locality to share; the shares add up to 100.
        to = "to": Map<'n, Int<'n>>;
    }

    /// Region fails over to region.
    struct FailoverSpec<'n> "Failover" {
        /// The region that fails.
        from = "from": Text<'n>;
        /// The region that takes over.
        to = "to": Text<'n>;
    }

    /// Which zones are preferred.
    struct ZoneAwareSpec<'n> "ZoneAwareLoadBalancerSetting" {
        /// false turns it off.
        enabled = "enabled": Bool<'n>;
        /// Region fails over to region.
        failover = "failover": List<FailoverSpec<'n>>;
        /// Priorities by how many of these labels are equal, in order.
        failover_priority = "failoverPriority": List<Text<'n>>;
        /// Not with fewer endpoints than this (6 by default).
        min_cluster_size = "minClusterSize": Long<'n>;
    }

    /// How a new endpoint's share grows.
    struct WarmupSpec<'n> "WarmupConfiguration" {
        /// How long.
        duration = "duration": Time<'n>, required;
        /// The share at the start, in percent (10 by default).
        minimum_percent = "minimumPercent": Number<'n>;
        /// The form of the curve (1 by default, a line).
        aggression = "aggression": Number<'n>;
    }

    /// Limits of connections and requests.
    struct ConnectionPoolSpec<'n> "ConnectionPoolSettings" {
        /// Of connections.
        tcp = "tcp": TcpPoolSpec<'n>;
        /// Of requests.
        http = "http": HttpPoolSpec<'n>;
    }

    /// Limits of connections.
    struct TcpPoolSpec<'n> "TCPSettings" {
        /// Connections to the host (2^32-1 by default).
        max_connections = "maxConnections": Signed<'n>;
        /// Time to connect (10s by default).
        connect_timeout = "connectTimeout": Time<'n>;
        /// TCP keep-alive probes.
        tcp_keepalive = "tcpKeepalive": TcpKeepaliveSpec<'n>;
        /// A connection is closed when it is this old.
        max_connection_duration = "maxConnectionDuration": Time<'n>;
        /// Idle time (1h by default; 0s: for ever).
        idle_timeout = "idleTimeout": Time<'n>;
    }

    /// TCP keep-alive probes.
    struct TcpKeepaliveSpec<'n> "TcpKeepalive" {
        /// Probes without an answer before the connection is dead.
        probes = "probes": Int<'n>;
        /// Idle time before the first.
        time = "time": Time<'n>;
        /// Between probes.
        interval = "interval": Time<'n>;
    }

    /// Limits of requests.
    struct HttpPoolSpec<'n> "HTTPSettings" {
        /// Requests that wait for a connection (2^32-1 by default).
        http1_max_pending_requests = "http1MaxPendingRequests": Signed<'n>;
        /// Requests in flight (2^32-1 by default).
        http2_max_requests = "http2MaxRequests": Signed<'n>;
        /// Requests on one connection (0, the default: no limit).
        max_requests_per_connection = "maxRequestsPerConnection": Signed<'n>;
        /// Retries in flight (2^32-1 by default).
        max_retries = "maxRetries": Signed<'n>;
        /// Idle time of a connection (1h by default).
        idle_timeout = "idleTimeout": Time<'n>;
        /// Whether HTTP/1.1 requests are sent as HTTP/2.
        h2_upgrade_policy = "h2UpgradePolicy": One<'n, H2UpgradePolicy>;
        /// Keep the client's protocol.
        use_client_protocol = "useClientProtocol": Bool<'n>;
        /// Streams on one HTTP/2 connection.
        max_concurrent_streams = "maxConcurrentStreams": Signed<'n>;
        /// HTTP/2 PING.
        http2_keep_alive = "http2KeepAlive": Http2KeepAliveSpec<'n>;
    }

    /// HTTP/2 PING.
    struct Http2KeepAliveSpec<'n> "Http2KeepAlive" {
        /// Between PINGs.
        interval = "interval": Time<'n>, required;
        /// Time for the answer.
        timeout = "timeout": Time<'n>, required;
    }

    /// When an endpoint is put aside.
    struct OutlierSpec<'n> "OutlierDetection" {
        /// 502, 503, 504 in a row.
        consecutive_errors = "consecutiveErrors": Signed<'n>,
            deprecated("consecutiveGatewayErrors or consecutive5xxErrors");
        /// Count local failures apart from the upstream's errors.
        split_external_local_origin_errors = "splitExternalLocalOriginErrors": Bool<'n>;
        /// Local failures in a row (5 by default).
        consecutive_local_origin_failures = "consecutiveLocalOriginFailures": Int<'n>;
        /// 502, 503, 504 in a row (off by default).
        consecutive_gateway_errors = "consecutiveGatewayErrors": Int<'n>;
        /// 5xx in a row (5 by default; 0: off).
        consecutive_5xx_errors = "consecutive5xxErrors": Int<'n>;
        /// Between sweeps (10s by default).
        interval = "interval": Time<'n>;
        /// Times the number of ejections (30s by default).
        base_ejection_time = "baseEjectionTime": Time<'n>;
        /// Share of endpoints that may be aside (10 by default).
        max_ejection_percent = "maxEjectionPercent": Signed<'n>;
        /// Below this share of healthy endpoints nothing is put aside (0 by default).
        min_health_percent = "minHealthPercent": Signed<'n>;
        /// Further statuses that count as 5xx.
        http_errors = "outlierDetectionHttpErrorCodes": List<Int<'n>>;
    }

    /// TLS to the upstream.
    struct ClientTlsSpec<'n> "ClientTLSSettings" {
        /// How TLS is used.
        mode = "mode": One<'n, ClientTlsMode>;
        /// Path of our certificate.
        client_certificate = "clientCertificate": Text<'n>;
        /// Path of our key.
        private_key = "privateKey": Text<'n>;
        /// Path of the authorities' certificates.
        ca_certificates = "caCertificates": Text<'n>;
        /// Name of a secret that holds them.
        credential_name = "credentialName": Text<'n>;
        /// Names of which the peer must have one.
        subject_alt_names = "subjectAltNames": List<Text<'n>>;
        /// Server name to ask for.
        sni = "sni": Text<'n>;
        /// Do not verify the peer.
        insecure_skip_verify = "insecureSkipVerify": Bool<'n>;
        /// Path of the revocation list.
        ca_crl = "caCrl": Text<'n>, later;
    }

    /// Tunnel to the upstream.
    struct TunnelSpec<'n> "TunnelSettings" {
        /// `CONNECT` (the default) or `POST`.
        protocol = "protocol": Text<'n>;
        /// Where the tunnel leads.
        target_host = "targetHost": Text<'n>, required;
        /// Its port.
        target_port = "targetPort": Int<'n>, required;
    }

    /// PROXY protocol to the upstream.
    struct ProxyProtocolSpec<'n> "ProxyProtocol" {
        /// V1 by default.
        version = "version": One<'n, ProxyProtocolVersion>;
    }

    /// How many retries may be active.
    struct RetryBudgetSpec<'n> "RetryBudget" {
        /// In percent of active requests (20 by default).
        percent = "percent": Number<'n>;
        /// At least this many (3 by default).
        min_retry_concurrency = "minRetryConcurrency": Int<'n>;
        /// Over how long requests are counted; `0s`, the default: those that are active.
        budget_interval = "budgetInterval": Time<'n>;
    }
}

words! {
    /// Simple algorithms.
    enum SimpleLb {
        /// The default: least requests.
        Unspecified = "UNSPECIFIED",
        /// Old name of LEAST_REQUEST.
        LeastConn = "LEAST_CONN",
        /// Any.
        Random = "RANDOM",
        /// The address that the caller asked for.
        Passthrough = "PASSTHROUGH",
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// Two random endpoints, the one with fewer requests in flight.
        LeastRequest = "LEAST_REQUEST",
    }

    /// Whether HTTP/1.1 requests are sent as HTTP/2.
    enum H2UpgradePolicy {
        /// As the mesh.
        Default = "DEFAULT",
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }

    /// How TLS is used.
    enum ClientTlsMode {
        /// None.
        Disable = "DISABLE",
        /// The server proves who it is.
        Simple = "SIMPLE",
        /// Both do, with given certificates.
        Mutual = "MUTUAL",
        /// Both do, with the mesh's.
        IstioMutual = "ISTIO_MUTUAL",
    }

    /// Version of the PROXY protocol.
    enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}
