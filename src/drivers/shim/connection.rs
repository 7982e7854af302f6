//! One connection to one shim: requests out, replies matched by id, events passed on. What does not live here: what
//! the messages mean.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_proto::shim::MAX_PACKET;
use berth_proto::shim::v1::{Message, Request, message::Body, request::Verb};
use prost::Message as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::{Event, ShimError};
use crate::activity;
use crate::drivers::watched::watched;
use crate::ids::PodId;

/// An answer and the file descriptors that came with it.
pub(super) type Answer = (Body, Vec<OwnedFd>);

pub(super) struct Connection {
    pod: PodId,
    socket: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    /// None once the shim has gone: nobody may wait any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
}

impl Connection {
    /// Takes a connected socket; replies and events are read until it ends or the connection is dropped. Lines about
    /// that are written in the current span.
    pub(super) fn start(
        pod: PodId,
        socket: OwnedFd,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Arc<Self>> {
        berth_sys::socket::set_nonblocking(&socket)?;
        let connection = Arc::new(Self {
            pod,
            socket: watched(socket)?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        tokio::spawn(read_loop(connection.clone(), events).in_current_span());
        Ok(connection)
    }

    /// Sends one request and waits for its answer; an Error of the shim becomes [`ShimError::Refused`].
    pub(super) async fn call(
        &self,
        verb: Verb,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, ShimError> {
        let name = verb_name(&verb);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let answer = self.expect(id)?;
        let packet = Request { id, verb: Some(verb) }.encode_to_vec();
        if let Err(error) = self.send(&packet, fds).await {
            tracing::debug!(verb = name, %error, "cannot send to the shim");
            self.forget(id);
            return Err(self.gone());
        }
        let _waiting = activity::wait(|| format!("the shim to answer {name}"));
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok((Body::Error(e), _))) => {
                Err(ShimError::Refused { step: e.step, errno: e.errno, message: e.message })
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => {
                self.forget(id);
                Err(ShimError::Timeout { pod: self.pod.clone(), verb: name, after: limit })
            }
        }
    }

    async fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| berth_sys::socket::send(socket.as_fd(), packet, fds)) {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }

    fn expect(&self, id: u64) -> Result<oneshot::Receiver<Answer>, ShimError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().ok_or_else(|| self.gone())?.insert(id, sender);
        Ok(receiver)
    }

    fn forget(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().and_then(|waiting| waiting.remove(&id))
    }

    fn gone(&self) -> ShimError {
        ShimError::Gone { pod: self.pod.clone() }
    }
}

async fn read_loop(connection: Arc<Connection>, events: mpsc::UnboundedSender<Event>) {
    loop {
        match receive(&connection.socket).await {
            Ok((packet, _)) if packet.is_empty() => break,
            Ok((packet, fds)) => dispatch(&connection, &packet, fds, &events),
            Err(error) => {
                tracing::warn!(%error, "the connection to the shim broke");
                break;
            }
        }
    }
    // Dropping the senders tells every waiting call.
    connection.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = events.send(Event::Gone { pod: connection.pod.clone() });
}

/// One packet, in a buffer of its own size: an idle connection holds none.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        let mut ready = socket.readable().await?;
        let packet = ready.try_io(|socket| {
            let mut buffer = vec![0; berth_sys::socket::next_len(socket.as_fd())?.min(MAX_PACKET)];
            let packet = berth_sys::socket::recv(socket.as_fd(), &mut buffer)?;
            buffer.truncate(packet.len);
            Ok((buffer, packet.fds))
        });
        match packet {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

fn dispatch(
    connection: &Connection,
    packet: &[u8],
    fds: Vec<OwnedFd>,
    events: &mpsc::UnboundedSender<Event>,
) {
    let message = match Message::decode(packet) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(%error, "a packet of the shim is garbled");
            return;
        }
    };
    match (message.id, message.body) {
        (0, Some(Body::Exited(exited))) => {
            let _ = events.send(Event::Exited { pod: connection.pod.clone(), exited });
        }
        (id, Some(body)) => {
            if let Some(waiting) = connection.forget(id) {
                let _ = waiting.send((body, fds));
            }
        }
        (_, None) => {
            tracing::debug!("a message of a newer shim is not understood");
        }
    }
}

fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Hello(_) => "hello",
        Verb::Setup(_) => "setup",
        Verb::Start(_) => "start",
        Verb::Exec(_) => "exec",
        Verb::Signal(_) => "signal",
        Verb::ReopenLog(_) => "reopen log",
        Verb::Resize(_) => "resize",
        Verb::Attach(_) => "attach",
        Verb::Delete(_) => "delete",
        Verb::Shutdown(_) => "shutdown",
    }
}
