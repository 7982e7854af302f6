//! Scenarios that disturb the node, and therefore run alone.

mod daemons;
