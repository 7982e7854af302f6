//! Containers: start, log, exit, exec.
