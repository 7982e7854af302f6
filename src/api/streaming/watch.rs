//! Whether a connection's client is still there: when something last moved, and whether the client has hung up. What does
//! not live here: what moves.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// How often a client that nobody reads from is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the client may take to close a connection whose session is over. Closing with bytes unread would make the
/// kernel throw away what the client has not read yet.
pub const LINGER: Duration = Duration::from_secs(300);

/// Of one connection.
pub struct Watch {
    begun: Instant,
    /// Milliseconds from `begun` to when something last moved.
    moved: AtomicU64,
    limit: Duration,
    /// A second descriptor of its socket.
    socket: Option<OwnedFd>,
}

impl Watch {
    /// Over a connection on which something has to move at least so often. Without a descriptor to spare, a client that
    /// hangs up is noticed when the session next reads or writes.
    pub fn new(socket: &impl AsFd, limit: Duration) -> Self {
        Self { socket: socket.as_fd().try_clone_to_owned().ok(), ..Self::without_socket(limit) }
    }

    /// Over a connection that is no socket.
    pub fn without_socket(limit: Duration) -> Self {
        Self { begun: Instant::now(), moved: AtomicU64::new(0), limit, socket: None }
    }

    /// Something has moved.
    pub fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for as long as the limit, which it gives.
    pub async fn idle(&self) -> Duration {
        loop {
            let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
            let quiet = self.begun.elapsed().saturating_sub(moved);
            match self.limit.checked_sub(quiet) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return self.limit,
            }
        }
    }

    /// Ends when the client has closed its side or is gone. For connections that are not read further because a session
    /// does not take what came: only then does the end not show by itself. It may be stuck behind bytes for which the
    /// kernel has no room: then only a client's kernel that is told something says that nobody listens any more, so `say`
    /// is to send a few bytes that no client answers.
    pub async fn hung_up(&self, say: impl Fn()) {
        loop {
            tokio::time::sleep(LOOK).await;
            say();
            if self.socket.as_ref().is_some_and(is_hung_up) {
                return;
            }
        }
    }
}

fn is_hung_up(socket: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec::default();
    rustix::event::poll(&mut watched, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_client_that_leaves_unread_bytes_behind_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let watch = Watch::new(&server, LONG);
        client.write_all(b"unread").unwrap();
        assert!(tokio::time::timeout(2 * LOOK, watch.hung_up(|| ())).await.is_err());
        drop(client);
        tokio::time::timeout(LONG, watch.hung_up(|| ())).await.unwrap();
    }

    #[tokio::test]
    async fn what_moves_is_not_idle() {
        let watch = Watch::without_socket(Duration::from_secs(2));
        let moving = async {
            for _ in 0..30 {
                watch.touch();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = watch.idle() => panic!("it was ended while it moved"),
            () = moving => {}
        }
        tokio::time::timeout(LONG, watch.idle()).await.unwrap();
    }
}
