//! From a container's spec and its image's config to an OCI runtime spec: pure.
