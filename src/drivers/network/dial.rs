//! Connections to a port inside a pod's network namespace. What does not live here: what flows through them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Connecting};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// How long the pod's own loopback may take: longer than any live server's full queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to 127.0.0.1, and then to ::1, in the network namespace of that name; None = in the caller's.
pub async fn dial(netns: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    let [v4, v6] = match netns {
        None => sockets()?,
        Some(path) => sockets_in(path.to_path_buf()).await?,
    };
    let first = connect(v4, (Ipv4Addr::LOCALHOST, port).into()).await;
    let Err(error) = first else { return first };
    // Where both fail, the first tells more: many pods have no IPv6 at all.
    connect(v6, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| error)
}

async fn connect(socket: io::Result<OwnedFd>, address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpSocket::from_std_stream(Connecting::from(socket?)).connect(address);
    tokio::time::timeout(PATIENCE, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A socket stays in the network namespace in which it was made; so a thread of its own enters that one, makes the sockets,
/// and ends. No thread that others use is ever in a pod.
async fn sockets_in(netns: PathBuf) -> io::Result<[io::Result<OwnedFd>; 2]> {
    let (done, made) = oneshot::channel();
    let make = move || {
        let entered = || setns(File::open(&netns)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let _ = done.send(entered().and_then(|()| sockets()));
    };
    std::thread::Builder::new().name("dial".into()).spawn(make)?;
    made.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

fn sockets() -> io::Result<[io::Result<OwnedFd>; 2]> {
    let make = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
    };
    Ok([AddressFamily::INET, AddressFamily::INET6].map(make))
}
