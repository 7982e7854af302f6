//! Whether a client has gone, for connections that read no further because a session does not take what came: only then
//! does the end of the connection not show by itself.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A second descriptor of a connection's socket; none for a connection that has no socket.
#[derive(Default)]
pub struct Hangup(Option<OwnedFd>);

impl Hangup {
    /// Watches this socket. Without a descriptor to spare, the end shows when the session next reads.
    pub fn of(socket: &impl AsFd) -> Self {
        Self(socket.as_fd().try_clone_to_owned().ok())
    }

    /// Ends when the client has closed its side or is gone.
    pub async fn happened(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.0.as_ref().is_some_and(hung_up) {
                return;
            }
        }
    }
}

fn hung_up(socket: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec::default();
    rustix::event::poll(&mut watched, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_client_that_leaves_unread_bytes_behind_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let hangup = Hangup::of(&server);
        client.write_all(b"unread").unwrap();
        assert!(tokio::time::timeout(2 * LOOK, hangup.happened()).await.is_err());
        drop(client);
        tokio::time::timeout(20 * LOOK, hangup.happened()).await.unwrap();
    }
}
