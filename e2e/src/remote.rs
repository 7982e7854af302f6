//! A client of exec and attach that does what kubectl never would: it stops reading, vanishes, and comes five hundred
//! at once. WebSocket, subprotocol v5.channel.k8s.io: the first byte of each message is its channel.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_proto::cri::v1::{AttachRequest, ExecRequest};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::client::Client;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Its next byte is the channel that ends.
const CLOSE: u8 = 255;

/// How long one message may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open session.
pub struct Remote {
    socket: WebSocketStream<TcpStream>,
}

/// What came of a session.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All of it.
    pub stdout: Vec<u8>,
    /// All of it.
    pub stderr: Vec<u8>,
    /// metav1.Status as JSON, as kubectl reads it.
    pub status: String,
}

impl Outcome {
    /// 0 for success; else the exit code that the status names.
    pub fn exit_code(&self) -> Result<i32> {
        let status: serde_json::Value =
            serde_json::from_str(&self.status).context("the status is not JSON")?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let code =
            causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str());
        Ok(code.with_context(|| format!("no exit code in {status}"))?.parse()?)
    }
}

/// What of its streams a client asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    /// To write to it.
    pub stdin: bool,
    /// A terminal, which has no errors of its own.
    pub tty: bool,
}

impl Remote {
    /// A command in a container.
    pub async fn exec(client: &Client, id: &str, command: &[&str], streams: Streams) -> Result<Self> {
        let request = ExecRequest {
            container_id: id.into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: true,
            stderr: !streams.tty,
        };
        Self::open(&client.runtime.clone().exec(request).await?.into_inner().url).await
    }

    /// A container's own streams.
    pub async fn attach(client: &Client, id: &str, streams: Streams) -> Result<Self> {
        let request = AttachRequest {
            container_id: id.into(),
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: true,
            stderr: !streams.tty,
        };
        Self::open(&client.runtime.clone().attach(request).await?.into_inner().url).await
    }

    /// What a URL promises.
    pub async fn open(url: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").with_context(|| format!("not a plain URL: {url}"))?;
        let (host, path) = address.split_once('/').context("a URL without a path")?;
        let mut stream = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            // Not a byte more: what follows belongs to the WebSocket.
            answer.push(tokio::time::timeout(crate::bound(PATIENCE), stream.read_u8()).await??);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 101 "), "{url}: {answer}");
        Ok(Self { socket: WebSocketStream::from_raw_socket(stream, Role::Client, None).await })
    }

    /// Writes to the process.
    pub async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(STDIN, bytes).await
    }

    /// The end of the input.
    pub async fn end_input(&mut self) -> Result<()> {
        self.send(CLOSE, &[STDIN]).await
    }

    /// Another size of the terminal.
    pub async fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        self.send(RESIZE, format!("{{\"Width\":{width},\"Height\":{height}}}").as_bytes()).await
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.send(Message::binary([&[channel], bytes].concat())).await?)
    }

    /// The next bytes of standard output; None at the end of the session.
    pub async fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        let mut outcome = Outcome::default();
        while outcome.stdout.is_empty() {
            if !self.receive(&mut outcome).await? {
                return Ok(None);
            }
        }
        Ok(Some(outcome.stdout))
    }

    /// All that is to come.
    pub async fn finish(mut self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        while self.receive(&mut outcome).await? {}
        Ok(outcome)
    }

    /// False at the end.
    async fn receive(&mut self, outcome: &mut Outcome) -> Result<bool> {
        let message = tokio::time::timeout(crate::bound(PATIENCE), self.socket.next())
            .await
            .context("the session is silent")?;
        let bytes = match message {
            None | Some(Ok(Message::Close(_))) => return Ok(false),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(_)) => return Ok(true),
            Some(Err(error)) => return Err(error.into()),
        };
        match bytes.split_first() {
            Some((&STDOUT, bytes)) => outcome.stdout.extend_from_slice(bytes),
            Some((&STDERR, bytes)) => outcome.stderr.extend_from_slice(bytes),
            Some((&ERROR, bytes)) => outcome.status += &String::from_utf8_lossy(bytes),
            Some((&CLOSE, _)) => {}
            other => bail!("not of the protocol: {other:?}"),
        }
        Ok(true)
    }
}
