//! The two loops of a connection: one reads frames and acts on them, one writes what streams and the first loop want
//! said. What does not live here: what the streams are for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::frame::{Decoder, Encoder, Frame, FrameError, Status};
use super::headers::Headers;
use super::link::{Link, STREAMS};
use super::stream::{Stream, Streams, Writer};
use crate::api::streaming::inbox::{self, inbox};
use crate::api::streaming::watch::{LINGER, Watch};

/// Bytes read at once.
const READ: usize = 32 << 10;
/// Frames of streams that wait to be written, of 32 KiB each.
const FRAMES: usize = 4;
/// Answers of the reading loop that wait to be written; a client that asks more and reads nothing waits, too.
const ANSWERS: usize = 32;
/// Frames are written together up to about this many bytes.
const BATCH: usize = 64 << 10;
/// How long the last words to a client that broke the protocol may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

const GOAWAY_OK: u32 = 0;
const GOAWAY_PROTOCOL_ERROR: u32 = 1;

/// Why a connection ended before its session.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client does not speak SPDY as it should")]
    Protocol(#[from] FrameError),
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the client has gone")]
    Gone,
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
}

/// Serves a connection that has just been upgraded. The future does all the work and ends with the connection; the streams
/// are for the session.
pub fn serve<T>(io: T, watch: Arc<Watch>) -> (impl Future<Output = ()> + Send, Streams)
where
    T: AsyncRead + AsyncWrite + Send,
{
    let link = Arc::new(Link::new());
    let (frames, queued) = mpsc::channel(FRAMES);
    let (answers, answered) = mpsc::channel(ANSWERS);
    let (opening, opened) = mpsc::channel(STREAMS);
    let (input, output) = tokio::io::split(io);
    let reading = Reading {
        link: link.clone(),
        answers: answers.clone(),
        frames: frames.downgrade(),
        opening,
        watch: watch.clone(),
    };
    let writing = Writing { link: link.clone(), watch: watch.clone(), answers: answered, frames: queued };
    let streams = Streams { opened, link: link.clone(), _frames: frames };
    let drive = async move {
        let ended = drive(reading.run(input), writing.run(output), answers, (&link, &watch)).await;
        link.end();
        if let Err(error) = ended {
            tracing::debug!(error = crate::error::chain(&error), "a streaming connection ended early");
        }
    };
    (drive, streams)
}

async fn drive(
    reading: impl Future<Output = Result<(), Broken>>,
    writing: impl Future<Output = io::Result<()>>,
    answers: mpsc::Sender<Frame>,
    (link, watch): (&Link, &Watch),
) -> Result<(), Broken> {
    tokio::pin!(reading, writing);
    let ended = tokio::select! {
        ended = &mut reading => ended,
        written = &mut writing => {
            written?;
            // The session is over and all is said: the client may close.
            return tokio::time::timeout(LINGER, reading).await.unwrap_or(Ok(()));
        }
        limit = watch.idle() => Err(Broken::Idle(limit)),
    };
    // The sessions learn of it now: nothing that they write will arrive.
    link.end();
    if let Err(Broken::Protocol(_) | Broken::Idle(_)) = ended {
        let status = if let Err(Broken::Idle(_)) = ended { GOAWAY_OK } else { GOAWAY_PROTOCOL_ERROR };
        let last_words = async {
            let _ = answers.send(Frame::GoAway { last: link.last(), status }).await;
            std::future::pending::<()>().await;
        };
        let write = async {
            tokio::select! { _ = writing => {}, () = last_words => {} }
        };
        let _ = tokio::time::timeout(LAST_WORDS, write).await;
    }
    ended
}

struct Reading {
    link: Arc<Link>,
    answers: mpsc::Sender<Frame>,
    /// Weak: only streams and sessions keep the writing loop up.
    frames: mpsc::WeakSender<Frame>,
    opening: mpsc::Sender<Stream>,
    watch: Arc<Watch>,
}

impl Reading {
    async fn run<T: AsyncRead>(self, mut input: ReadHalf<T>) -> Result<(), Broken> {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = decoder.next(&mut buffer)? {
                self.act(frame).await?;
            }
            buffer.reserve(READ);
            if input.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            self.watch.touch();
        }
    }

    async fn act(&self, frame: Frame) -> Result<(), Broken> {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                self.open(stream, headers).await;
                if fin {
                    self.link.received_all(stream);
                }
            }
            Frame::Data { stream, fin, bytes } => {
                match self.link.feeder(stream) {
                    Some(feeder) => tokio::select! {
                        biased;
                        () = feeder.feed(bytes) => {}
                        () = self.watch.hung_up() => return Err(Broken::Gone),
                    },
                    // Of a stream that was reset while this was under way.
                    None => self.link.credit_lost(bytes.len()),
                }
                if fin {
                    self.link.received_all(stream);
                }
            }
            Frame::Headers { stream, fin: true, .. } => self.link.received_all(stream),
            Frame::Reset { stream, .. } => self.link.reset(stream),
            Frame::Settings { initial_window: Some(window) } => self.link.set_initial_window(window),
            Frame::WindowUpdate { stream, delta } => {
                if !self.link.widen(stream, delta) {
                    self.refuse(stream, Status::FLOW_CONTROL_ERROR).await;
                }
            }
            // Odd ones are the client's; even ones would answer ours, and we send none.
            Frame::Ping(id) if !id.is_multiple_of(2) => self.answer(Frame::Ping(id)).await,
            Frame::GoAway { .. } => self.link.close(),
            // We open no streams and ask no questions: nothing of these is for us.
            Frame::Ping(_) | Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Settings { .. } => {}
        }
        Ok(())
    }

    async fn open(&self, id: u32, headers: Headers) {
        let link = self.link.clone();
        let (feeder, reader) = inbox(self.link.budget(), on_read(link, id));
        if let Err(status) = self.link.open(id, feeder) {
            return self.answer(Frame::Reset { stream: id, status }).await;
        }
        let Some(frames) = self.frames.upgrade() else {
            return self.refuse(id, Status::REFUSED_STREAM).await;
        };
        let writer = Writer { id, link: self.link.clone(), frames };
        if self.opening.try_send(Stream { id, headers, reader, writer }).is_err() {
            self.refuse(id, Status::REFUSED_STREAM).await;
        }
    }

    async fn refuse(&self, id: u32, status: Status) {
        self.link.reset(id);
        self.answer(Frame::Reset { stream: id, status }).await;
    }

    async fn answer(&self, frame: Frame) {
        // The writing loop ends only when nobody needs an answer.
        let _ = self.answers.send(frame).await;
    }
}

fn on_read(link: Arc<Link>, id: u32) -> inbox::OnRead {
    let link = Arc::downgrade(&link);
    Box::new(move |length| {
        if let Some(link) = link.upgrade() {
            link.credit(id, length);
        }
    })
}

struct Writing {
    link: Arc<Link>,
    watch: Arc<Watch>,
    answers: mpsc::Receiver<Frame>,
    frames: mpsc::Receiver<Frame>,
}

impl Writing {
    /// Ends when no session can write any more, and all is written.
    async fn run<T: AsyncWrite>(mut self, mut output: WriteHalf<T>) -> io::Result<()> {
        let mut encoder = Encoder::new();
        let mut buffer = BytesMut::with_capacity(BATCH);
        loop {
            let last = self.gather(&mut encoder, &mut buffer).await?;
            output.write_all_buf(&mut buffer).await?;
            output.flush().await?;
            self.watch.touch();
            if last {
                return output.shutdown().await;
            }
        }
    }

    /// Encodes the next frames; true if they are the last.
    async fn gather(&mut self, encoder: &mut Encoder, buffer: &mut BytesMut) -> io::Result<bool> {
        let mut put = |frame: &Frame| encoder.put(frame, buffer).map_err(io::Error::other);
        tokio::select! {
            biased;
            Some(answer) = self.answers.recv() => {
                put(&answer)?;
                return Ok(matches!(answer, Frame::GoAway { .. }));
            }
            due = self.link.credits_due() => {
                for (stream, delta) in due {
                    put(&Frame::WindowUpdate { stream, delta })?;
                }
            }
            frame = self.frames.recv() => match frame {
                Some(frame) => put(&frame)?,
                None => {
                    put(&Frame::GoAway { last: self.link.last(), status: GOAWAY_OK })?;
                    return Ok(true);
                }
            },
        }
        while buffer.len() < BATCH
            && let Ok(frame) = self.frames.try_recv()
        {
            encoder.put(&frame, buffer).map_err(io::Error::other)?;
        }
        Ok(false)
    }
}
