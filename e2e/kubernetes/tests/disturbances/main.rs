//! Scenarios that disturb the node, and therefore run alone.

mod chart;
mod daemons;
mod drain;
mod full_node;
mod pressure;
mod top;
