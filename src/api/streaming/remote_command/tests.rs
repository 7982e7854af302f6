//! Sessions of real processes, with a client in the same process that speaks SPDY.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::api::streaming::spdy;
use crate::api::streaming::spdy::client::Client;
use crate::api::streaming::watch::Watch;
use crate::drivers::stdio;

const LONG: Duration = Duration::from_secs(60);

/// A session of a shell script: stdin, stdout, stderr and error are streams 1, 3, 5 and 7.
struct Shell {
    client: Client<DuplexStream>,
    serving: JoinHandle<()>,
}

const STDIN: u32 = 1;
const STDOUT: u32 = 3;
const STDERR: u32 = 5;
const ERROR: u32 = 7;

impl Shell {
    async fn run(script: &str) -> Self {
        Self::run_version(script, spdy::VERSIONS[0]).await
    }

    async fn run_version(script: &str, version: spdy::Version) -> Self {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let (drive, streams) = spdy::serve(theirs, Arc::new(Watch::without_socket(LONG)));
        let mut client = Client::new(ours);
        let script = script.to_string();
        let session = async move {
            let wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: true };
            let channels = spdy::open(streams, wanted, version).await.unwrap();
            let (stdin, their_stdin) = stdio::input().unwrap();
            let (stdout, their_stdout) = stdio::output().unwrap();
            let (stderr, their_stderr) = stdio::output().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", &script]).stdin(their_stdin).stdout(their_stdout).stderr(their_stderr);
            let mut child = command.spawn().unwrap();
            drop(command);
            let process =
                Process { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), terminal: None };
            let end = async move {
                let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
            };
            channels.relay(process, end).await;
        };
        let serving = tokio::spawn(async move {
            tokio::join!(drive, session);
        });
        for kind in ["stdin", "stdout", "stderr", "error"] {
            client.open(&[("streamtype", kind)]).await;
        }
        Self { client, serving }
    }

    async fn outcome(&mut self) -> String {
        let text = timeout(LONG, self.client.read_to_end(ERROR)).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    async fn status(&mut self) -> Value {
        serde_json::from_str(&self.outcome().await).unwrap()
    }
}

#[tokio::test]
async fn output_comes_before_the_outcome_and_then_the_connection_ends() {
    let mut shell = Shell::run("printf out; printf err >&2; exit 3").await;
    let (mut stdout, mut stderr, mut outcome) = (Vec::new(), Vec::new(), Vec::new());
    let mut order = Vec::new();
    loop {
        let frame = timeout(LONG, shell.client.next()).await.unwrap();
        let Some(spdy::Frame::Data { stream, fin, bytes }) = frame else { continue };
        match stream {
            STDOUT => stdout.extend_from_slice(&bytes),
            STDERR => stderr.extend_from_slice(&bytes),
            ERROR => outcome.extend_from_slice(&bytes),
            stream => panic!("data of stream {stream}"),
        }
        if fin {
            order.push(stream);
        }
        if fin && stream == ERROR {
            break;
        }
    }
    assert_eq!((&stdout[..], &stderr[..]), (&b"out"[..], &b"err"[..]));
    order[..2].sort_unstable();
    assert_eq!(order, [STDOUT, STDERR, ERROR]);
    let status: Value = serde_json::from_slice(&outcome).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    // The process has ended though the client's stdin is open.
    let mut ended = Vec::new();
    while let Some(frame) = timeout(LONG, shell.client.next()).await.unwrap() {
        match frame {
            spdy::Frame::Data { stream, fin: true, .. } => ended.push(stream),
            spdy::Frame::GoAway { status: 0, .. } => ended.push(0),
            frame => panic!("{frame:?}"),
        }
    }
    assert_eq!(ended, [STDIN, 0]);
    drop(shell.client);
    timeout(LONG, shell.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_client_says_reaches_the_process_with_its_end() {
    let mut shell = Shell::run("cat; echo done").await;
    let mut said = Vec::new();
    for n in 0..100_u8 {
        shell.client.data(STDIN, &[n; 1000], false).await;
        said.extend([n; 1000]);
    }
    shell.client.data(STDIN, b"", true).await;
    let heard = timeout(LONG, shell.client.read_to_end(STDOUT)).await.unwrap();
    assert_eq!(heard, [&said[..], b"done\n"].concat());
    assert_eq!(shell.status().await["status"], "Success");
}

#[tokio::test]
async fn input_that_nobody_takes_holds_nothing_up() {
    let mut shell = Shell::run("exec 0<&-; sleep 1; echo still here").await;
    let mut sent = 0;
    while sent < 1 << 20 {
        timeout(LONG, shell.client.data(STDIN, &[0; 32 << 10], false)).await.unwrap();
        sent += 32 << 10;
    }
    assert_eq!(timeout(LONG, shell.client.read_to_end(STDOUT)).await.unwrap(), b"still here\n");
}

#[tokio::test]
async fn a_process_whose_output_the_client_closes_finds_a_broken_pipe() {
    let mut shell = Shell::run("yes").await;
    // Something has come.
    while !matches!(shell.client.next().await, Some(spdy::Frame::Data { stream: STDOUT, .. })) {}
    shell.client.reset(STDOUT).await;
    assert_eq!(shell.status().await["details"]["causes"][0]["message"], "141");
}

#[tokio::test]
async fn old_clients_are_told_in_text() {
    let text = spdy::VERSIONS[2];
    let mut shell = Shell::run_version("exit 3", text).await;
    assert_eq!(shell.outcome().await, "command terminated with exit code 3");
    let mut shell = Shell::run_version("exit 0", text).await;
    assert_eq!(shell.outcome().await, "");
}

#[tokio::test]
async fn much_output_is_whole() {
    let mut shell = Shell::run("head -c 5000000 /dev/zero | tr '\\0' x").await;
    let heard = timeout(LONG, shell.client.read_to_end(STDOUT)).await.unwrap();
    assert_eq!((heard.len(), heard.iter().all(|byte| *byte == b'x')), (5_000_000, true));
    assert_eq!(shell.status().await["status"], "Success");
}

#[tokio::test]
async fn streams_beyond_those_needed_are_ended_with_the_session() {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let (drive, streams) = spdy::serve(theirs, Arc::new(Watch::without_socket(LONG)));
    let mut client = Client::new(ours);
    let session = async move {
        let wanted = Wanted { tty: false, stdin: false, stdout: true, stderr: false };
        let channels = spdy::open(streams, wanted, spdy::VERSIONS[0]).await.unwrap();
        assert!(channels.stdin.is_none() && channels.stderr.is_none());
        channels.tell(Outcome::Failed("there is no such program".into())).await;
    };
    let serving = tokio::spawn(async move {
        tokio::join!(drive, session);
    });
    for kind in ["stdin", "stderr", "no such type", "error", "stdout"] {
        client.open(&[("streamtype", kind)]).await;
    }
    let status: Value = serde_json::from_slice(&client.read_to_end(7).await).unwrap();
    assert_eq!(status["message"], "there is no such program");
    assert_eq!(status["reason"], "InternalError");
    let mut ended = 0;
    while let Some(frame) = timeout(LONG, client.next()).await.unwrap() {
        ended += usize::from(matches!(frame, spdy::Frame::Data { stream: 1 | 3, fin: true, .. }));
    }
    assert_eq!(ended, 2);
    drop(client);
    timeout(LONG, serving).await.unwrap().unwrap();
}
