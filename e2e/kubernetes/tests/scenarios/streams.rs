//! `kubectl exec`, `attach`, `cp` and `port-forward`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e_kubernetes::images::{BUSYBOX, NGINX};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};

fn shell(s: &Scenario) -> Result<()> {
    s.run("shell", BUSYBOX, &["sleep", "100000"])?;
    s.wait("pod/shell", "condition=Ready").map(drop)
}

#[test]
fn exec_passes_input_output_and_exit_code() -> Result<()> {
    scenario("exec", |s| {
        shell(s)?;
        assert_eq!(s.kubectl(&["exec", "shell", "--", "hostname"])?, "shell");
        assert_eq!(s.kubectl_with("three words here", &["exec", "-i", "shell", "--", "wc", "-w"])?, "3");
        let output = s.output(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(output.stdout, b"out\n");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error, "err\ncommand terminated with exit code 7\n");
        let missing = s.refused(&["exec", "shell", "--", "no-such-program"])?;
        assert!(missing.contains("no-such-program"), "{missing}");
        // Ten megabytes, both ways.
        let long = "0123456789abcde\n".repeat(640 << 10);
        let echoed = s.kubectl_with(&long, &["exec", "-i", "shell", "--", "cat"])?;
        assert_eq!(echoed.len(), long.trim().len());
        Ok(())
    })
}

#[test]
fn attach_shows_output_and_takes_input() -> Result<()> {
    scenario("attach", |s| {
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: echo }}
spec:
  restartPolicy: Never
  containers:
  - name: echo
    image: {BUSYBOX}
    stdin: true
    stdinOnce: true
    command: [ sh, -c, 'while read -r line; do echo \"heard $line\"; done; echo end' ]
"
        ))?;
        s.wait("pod/echo", "condition=Ready")?;
        let heard = s.kubectl_with("one\ntwo\n", &["attach", "-i", "-q", "echo"])?;
        assert!(heard.contains("heard one\nheard two"), "{heard}");
        s.wait("pod/echo", "jsonpath={.status.phase}=Succeeded")?;
        assert_eq!(s.kubectl(&["logs", "echo"])?, "heard one\nheard two\nend");
        Ok(())
    })
}

#[test]
fn cp_copies_files_and_trees_both_ways() -> Result<()> {
    scenario("cp", |s| {
        shell(s)?;
        let scratch = tempfile::tempdir()?;
        let path = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir_all(path("tree/below"))?;
        let content: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
        std::fs::write(path("tree/below/file"), &content)?;
        std::fs::write(path("tree/other"), "other")?;
        s.kubectl(&["cp", &path("tree"), "shell:/tmp/tree"])?;
        assert_eq!(s.kubectl(&["exec", "shell", "--", "cat", "/tmp/tree/other"])?, "other");
        s.kubectl(&["cp", "shell:/tmp/tree/below/file", &path("back")])?;
        assert!(std::fs::read(path("back"))? == content, "the file changed on its way");
        Ok(())
    })
}

#[test]
fn port_forward_reaches_a_server_in_the_pod() -> Result<()> {
    scenario("port-forward", |s| {
        s.run("web", NGINX, &["nginx", "-g", "daemon off;"])?;
        s.wait("pod/web", "condition=Ready")?;
        let output = tempfile::NamedTempFile::new()?;
        let _forward = s.beside(&["port-forward", "pod/web", ":80"], output.path())?;
        let said = s.until(|| Ok(std::fs::read_to_string(output.path())?), |text| text.contains("-> 80"))?;
        let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.context("no port")?.parse()?;
        for _ in 0..5 {
            assert!(get(port)?.contains("nginx"), "not the server's page");
        }
        Ok(())
    })
}

fn get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
