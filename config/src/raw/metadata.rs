//! `metadata`: what every Kubernetes object may have there.

use super::{Any, List, Long, Text, TextMap, object};

object! {
    /// Name, namespace, labels and annotations of a resource.
    struct Metadata<'n> "metadata" {
        /// The name, unique in its namespace and kind.
        name = "name": Text<'n>;
        /// Accepted and not used: names are not generated.
        generate_name = "generateName": Text<'n>;
        /// The namespace; `default` when absent.
        namespace = "namespace": Text<'n>;
        /// Labels.
        labels = "labels": TextMap<'n>;
        /// Annotations.
        annotations = "annotations": TextMap<'n>;
        /// Kubernetes' own.
        uid = "uid": Any;
        /// Kubernetes' own.
        resource_version = "resourceVersion": Any;
        /// Kubernetes' own.
        generation = "generation": Long<'n>;
        /// Kubernetes' own.
        creation_timestamp = "creationTimestamp": Any;
        /// Kubernetes' own.
        deletion_timestamp = "deletionTimestamp": Any;
        /// Kubernetes' own.
        deletion_grace_period = "deletionGracePeriodSeconds": Long<'n>;
        /// Kubernetes' own.
        finalizers = "finalizers": List<Text<'n>>;
        /// Kubernetes' own.
        owner_references = "ownerReferences": Any;
        /// Kubernetes' own.
        managed_fields = "managedFields": Any;
        /// Kubernetes' own.
        self_link = "selfLink": Any;
        /// Kubernetes' own (removed in 1.24).
        cluster_name = "clusterName": Any;
    }
}
