//! A host as kubeadm leaves one, below a directory, with a kubelet of which there is no more than what others see: its command
//! line, and whether it says that it is healthy.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Kubelet, Systemd};

/// The kubelet's process id: nobody is asked for more than its command line.
const KUBELET_PID: u32 = 4242;

/// The host. Dropping it ends what it has started.
pub struct Host {
    systemd: Systemd,
    healthz: String,
    kubelet: Shared,
    /// The last of it.
    _mounts: Mounts,
}

/// Whatever is mounted below a directory is not, afterwards.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        crate::census::unmount_below(&self.0);
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Pretended>>);

#[derive(Default)]
struct Pretended {
    root: PathBuf,
    /// Its command line while it runs.
    line: Option<String>,
    /// It is not healthy while its command line has this.
    sick: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pretended> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kubelet for Shared {
    fn start(&mut self, line: &str) -> Result<()> {
        let mut kubelet = self.lock();
        if kubelet.line.is_none() {
            let process = kubelet.root.join(format!("proc/{KUBELET_PID}"));
            fs::create_dir_all(&process)?;
            let words: Vec<_> = line.split_whitespace().collect();
            fs::write(process.join("cmdline"), words.join("\0") + "\0")?;
            kubelet.line = Some(line.into());
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.lock().line = None;
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.lock().line.as_ref().map(|_| KUBELET_PID)
    }
}

impl Host {
    /// A host below a directory whose kubelet runs on `runtime`'s socket.
    pub async fn boot(root: &Path, runtime: &str) -> Result<Self> {
        for directory in ["etc/systemd/system", "usr/lib/systemd/system/kubelet.service.d", "opt", "var/lib"]
        {
            fs::create_dir_all(root.join(directory))?;
        }
        let unit = "[Unit]\nDescription=kubelet\n\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n";
        fs::write(root.join("usr/lib/systemd/system/kubelet.service"), unit)?;
        let drop_in = format!(
            "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS \\\n  --container-runtime-endpoint=unix://{runtime}\n"
        );
        fs::write(root.join("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"), drop_in)?;
        let kubelet = Shared::default();
        kubelet.lock().root = root.into();
        let systemd = Systemd::boot(root, root, Box::new(kubelet.clone())).await?;
        let healthz = serve_health(kubelet.clone()).await?;
        systemd.start("kubelet.service")?;
        Ok(Self { systemd, healthz, kubelet, _mounts: Mounts(root.into()) })
    }

    /// Where its kubelet says that it is healthy.
    pub fn healthz(&self) -> &str {
        &self.healthz
    }

    /// The kubelet's command line while it runs.
    pub fn kubelet(&self) -> Option<String> {
        self.kubelet.lock().line.clone()
    }

    /// From now on a kubelet with this in its command line is not healthy.
    pub fn sicken(&self, part: Option<&str>) {
        self.kubelet.lock().sick = part.map(String::from);
    }
}

impl Deref for Host {
    type Target = Systemd;

    fn deref(&self) -> &Systemd {
        &self.systemd
    }
}

async fn serve_health(kubelet: Shared) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let healthy = {
                let kubelet = kubelet.lock();
                let sick = |line: &String| kubelet.sick.as_ref().is_some_and(|part| line.contains(part));
                kubelet.line.as_ref().is_some_and(|line| !sick(line))
            };
            let code = if healthy { "200 OK" } else { "500 Internal Server Error" };
            let _ = stream.write_all(format!("HTTP/1.0 {code}\r\n\r\n").as_bytes()).await;
        }
    });
    Ok(address)
}
