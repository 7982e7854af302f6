//! Pod sandboxes: what was asked for (`spec`), and one verb a file. No system calls, no CRI types.

pub mod spec;
