//! Requests for streaming sessions: which streams go together.

use berth_proto::cri::v1;

use super::Invalid;
use crate::containers::{AttachRequest, ExecRequest};

/// What Exec asks for.
pub fn exec(request: v1::ExecRequest) -> Result<ExecRequest, Invalid> {
    let v1::ExecRequest { cmd: command, tty, stdin, stdout, stderr, .. } = request;
    streams(tty, stderr, stdin || stdout || stderr)?;
    if command.is_empty() {
        return Err(Invalid::new("cmd", "is empty"));
    }
    Ok(ExecRequest { command, tty, stdin, stdout, stderr })
}

/// What Attach asks for.
pub fn attach(request: &v1::AttachRequest) -> Result<AttachRequest, Invalid> {
    let v1::AttachRequest { tty, stdin, stdout, stderr, .. } = *request;
    streams(tty, stderr, stdin || stdout || stderr)?;
    Ok(AttachRequest { tty, stdin, stdout, stderr })
}

/// api.proto, ExecRequest and AttachRequest.
fn streams(tty: bool, stderr: bool, any: bool) -> Result<(), Invalid> {
    if tty && stderr {
        return Err(Invalid::new("stderr", "can not go with tty: a terminal has one output"));
    }
    if !any {
        return Err(Invalid::new("stdin, stdout, stderr", "one of them must be set"));
    }
    Ok(())
}

/// Most ports of one request; who needs more has a protocol that names them one by one.
const PORTS: usize = 32;

/// Ports that a client names beforehand, as those without SPDY do.
pub fn ports(ports: &[i32]) -> Result<Vec<u16>, Invalid> {
    if ports.len() > PORTS {
        return Err(Invalid::new("port", format!("there are {}, and {PORTS} are possible", ports.len())));
    }
    let parse = |port: &i32| {
        let port = u16::try_from(*port).ok().filter(|port| *port > 0);
        port.ok_or_else(|| Invalid::new("port", "there is one that is not between 1 and 65535"))
    };
    ports.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_errors_of_its_own_and_silence_no_session() {
        let exec_of = |tty, stdin, stdout, stderr| {
            let cmd = vec!["true".to_string()];
            exec(v1::ExecRequest { container_id: "x".into(), cmd, tty, stdin, stdout, stderr })
        };
        assert!(exec_of(true, true, true, false).is_ok());
        assert!(exec_of(false, false, false, true).is_ok());
        assert!(exec_of(true, true, true, true).is_err());
        assert!(exec_of(false, false, false, false).is_err());
        assert!(exec(v1::ExecRequest { stdout: true, ..Default::default() }).is_err());
        assert!(attach(&v1::AttachRequest { stdin: true, ..Default::default() }).is_ok());
        assert!(attach(&v1::AttachRequest { tty: true, stderr: true, ..Default::default() }).is_err());
        assert!(attach(&v1::AttachRequest::default()).is_err());
    }

    #[test]
    fn ports_that_are_none_are_refused() {
        assert_eq!((ports(&[]), ports(&[1, 65535])), (Ok(vec![]), Ok(vec![1, 65535])));
        assert!(ports(&[80; PORTS]).is_ok() && ports(&[80; PORTS + 1]).is_err());
        for bad in [0, -1, 65536] {
            assert!(ports(&[80, bad]).is_err(), "{bad}");
        }
    }
}
