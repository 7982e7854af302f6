//! Scenarios that disturb the node, and therefore run alone.

mod daemons;
mod drain;
mod full_node;
mod pressure;
