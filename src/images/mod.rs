//! Images: references, pulls, removal, usage. No HTTP and no tar here: those are drivers.

pub mod image;
pub mod reference;
