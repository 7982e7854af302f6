//! SPDY/3.1, the server's side of what client-go speaks: `frame` and `headers` are the bytes, `link` the streams of one
//! connection and their windows, `connection` its two loops, `stream` what a session holds.
//!
//! Flow control: clients built on spdystream neither send nor heed window updates; with them, what TCP takes is the
//! measure. So the accounts are kept from the first byte, as the specification wants, but a window stops us only once the
//! client has sent a window update or a window in its settings. What we take is credited always.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod link;
mod opening;
mod stream;

#[cfg(test)]
pub mod client;
#[cfg(test)]
mod tests;

pub use connection::serve;
pub use frame::Status;
#[cfg(any(test, fuzzing))]
pub use frame::{CONTROL, Decoder, Frame};
pub use opening::{VERSIONS, Version, open};
pub use stream::{Stream, Streams, Writer};
