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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// A new network namespace, its loopback up, with a listener in it that greets.
    fn other_namespace(address: &'static str, greeting: &'static str) -> (PathBuf, u16) {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns = File::open("/proc/thread-self/ns/net").unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let listener = std::net::TcpListener::bind((address, 0)).unwrap();
            let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()));
            sender.send((path, listener.local_addr().unwrap().port())).unwrap();
            for stream in listener.incoming() {
                std::io::Write::write_all(&mut stream.unwrap(), greeting.as_bytes()).unwrap();
            }
        });
        receiver.recv().unwrap()
    }

    async fn greeting(netns: Option<&Path>, port: u16) -> io::Result<String> {
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut dial(netns, port).await?, &mut text).await?;
        Ok(text)
    }

    fn namespaces() -> std::collections::HashSet<PathBuf> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter_map(|task| std::fs::read_link(task.path().join("ns/net")).ok()).collect()
    }

    #[tokio::test]
    async fn a_port_inside_is_reached_by_ipv4_or_ipv6_and_no_thread_stays_inside() {
        let before = namespaces();
        for (address, text) in [("127.0.0.1", "four"), ("::1", "six")] {
            let (netns, port) = other_namespace(address, text);
            let with_listener = namespaces();
            assert_eq!(greeting(Some(&netns), port).await.unwrap(), text);
            assert!(namespaces().is_subset(&with_listener));
            let outside = greeting(None, port).await;
            assert!(outside.is_err() || outside.is_ok_and(|seen| seen != text));
        }
        assert!(before.is_subset(&namespaces()));
    }

    #[tokio::test]
    async fn a_closed_port_and_a_namespace_that_is_gone_are_errors() {
        let (netns, port) = other_namespace("127.0.0.1", "x");
        let closed = dial(Some(&netns), if port == 9 { 10 } else { 9 }).await.unwrap_err();
        assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused);
        let gone = dial(Some(Path::new("/no/such/namespace")), 80).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let none = dial(Some(Path::new("/proc/version")), 80).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::InvalidInput);
    }
}
