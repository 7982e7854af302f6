//! Against real servers: Debian's docker-registry, and one that misbehaves.
