use std::io::{Read, Write};

use rustix::pty::OpenptFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

fn ended_by() -> (oneshot::Sender<()>, Ended) {
    let (end, ended) = oneshot::channel();
    (end, Box::pin(async { drop(ended.await) }))
}

/// A terminal and the side that a process would have.
fn pair() -> (Writer, Reader, Master, std::fs::File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let (writer, reader, size) = terminal(master).unwrap();
    (writer, reader, size, peer.into())
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.unwrap()
}

#[tokio::test]
async fn a_reader_gives_all_bytes_and_then_the_end() {
    let (mut reader, theirs) = output().unwrap();
    let writing =
        std::thread::spawn(move || std::fs::File::from(theirs).write_all(&vec![7; 500_000]).unwrap());
    let mut bytes = Vec::new();
    within(reader.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.len() == 500_000 && bytes.iter().all(|byte| *byte == 7));
    writing.join().unwrap();
}

#[tokio::test]
async fn the_end_of_the_process_ends_a_stream_that_another_holds_after_what_was_left_in_it() {
    let (reader, theirs) = output().unwrap();
    let (end, ended) = ended_by();
    let mut reader = reader.until(ended);
    let mut held = std::fs::File::from(theirs);
    held.write_all(&[1; 60_000]).unwrap();
    end.send(()).unwrap();
    tokio::time::sleep(DRAIN * 3).await;
    // A client that is slow to read gets it all the same.
    let mut bytes = [0; 1000];
    for _ in 0..60 {
        within(reader.read_exact(&mut bytes)).await.unwrap();
    }
    assert_eq!(within(reader.read(&mut bytes)).await.unwrap(), 0);
    // What comes later is the background's.
    held.write_all(b"late").unwrap();
    assert_eq!(within(reader.read(&mut bytes)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_background_that_never_stops_writing_does_not_hold_the_end() {
    let (reader, theirs) = output().unwrap();
    let (end, ended) = ended_by();
    let mut reader = reader.until(ended);
    let writing = std::thread::spawn(move || {
        let mut theirs = std::fs::File::from(theirs);
        while theirs.write_all(&[3; 4096]).is_ok() {}
    });
    end.send(()).unwrap();
    let mut bytes = Vec::new();
    within(reader.read_to_end(&mut bytes)).await.unwrap();
    drop(reader);
    writing.join().unwrap();
}

#[tokio::test]
async fn a_stream_that_is_held_open_tells_when_it_has_ended() {
    let (open, mut closed) = mpsc::channel(1);
    let (reader, theirs) = output().unwrap();
    let (other, _held) = output().unwrap();
    let (mut reader, other) = (reader.holding(open.clone()), other.holding(open));
    drop(other);
    drop(theirs);
    assert!(closed.try_recv().is_err());
    within(reader.read(&mut [0; 8])).await.unwrap();
    assert!(within(closed.recv()).await.is_none());
}

#[tokio::test]
async fn a_pipe_that_is_shut_down_or_dropped_gives_its_end_of_file() {
    for shut_down in [true, false] {
        let (mut writer, theirs) = input().unwrap();
        within(writer.write_all(b"hello")).await.unwrap();
        let kept = match shut_down {
            true => within(writer.shutdown()).await.map(|()| Some(writer)).unwrap(),
            false => {
                drop(writer);
                None
            }
        };
        let mut text = String::new();
        std::fs::File::from(theirs).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        if let Some(mut writer) = kept {
            assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_process_and_loses_nothing() {
    let (mut writer, theirs) = input().unwrap();
    let reading = std::thread::spawn(move || {
        let (mut theirs, mut all, mut piece) = (std::fs::File::from(theirs), 0, [0; 10_000]);
        loop {
            std::thread::sleep(Duration::from_millis(1));
            match theirs.read(&mut piece).unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    within(writer.write_all(&vec![1; 1_000_000])).await.unwrap();
    drop(writer);
    assert_eq!(reading.join().unwrap(), 1_000_000);
}

#[tokio::test]
async fn nobody_reading_is_a_broken_pipe() {
    let (mut writer, theirs) = input().unwrap();
    drop(theirs);
    assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_terminal_that_is_shut_down_reads_its_end_of_file_also_after_half_a_line() {
    for (typed, lines) in [("one\n", &["one\n"][..]), ("one\nhalf", &["one\n", "half"]), ("", &[])] {
        let (mut writer, _reader, _size, mut peer) = pair();
        writer.write_all(typed.as_bytes()).await.unwrap();
        within(writer.shutdown()).await.unwrap();
        let mut buffer = [0; 100];
        for line in lines {
            let count = peer.read(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], line.as_bytes());
        }
        assert_eq!(peer.read(&mut buffer).unwrap(), 0, "{typed:?}");
    }
}

#[tokio::test]
async fn a_terminal_ends_with_its_process_though_others_hold_it_and_has_the_size_it_was_given() {
    let (_writer, reader, size, mut peer) = pair();
    let (end, ended) = ended_by();
    let mut reader = reader.until(ended);
    size.resize(123, 45).unwrap();
    let seen = rustix::termios::tcgetwinsize(&peer).unwrap();
    assert_eq!((seen.ws_col, seen.ws_row), (123, 45));
    peer.write_all(b"bye\n").unwrap();
    end.send(()).unwrap();
    let mut text = String::new();
    within(reader.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "bye\r\n");
}

#[tokio::test]
async fn a_terminal_that_nobody_holds_is_at_its_end_and_takes_no_input() {
    let (mut writer, mut reader, _size, mut peer) = pair();
    peer.write_all(b"last").unwrap();
    drop(peer);
    let mut text = String::new();
    within(reader.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "last");
    // Linux keeps what is typed for a process that may open the terminal again, or refuses it.
    let typed = within(writer.write(b"x")).await;
    assert!(typed.is_ok() || typed.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe));
    within(writer.shutdown()).await.unwrap();
}
