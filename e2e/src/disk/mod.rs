//! A disk of ours with a file system on it, for what real disks do only once in their lives: it loses power at a chosen
//! write, fails at a chosen write, or turns a bit. A loop device over a file that this process serves by FUSE. What does
//! not live here: what runs on it.

mod medium;
mod serve;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fuser::BackgroundSession;
use tempfile::TempDir;

pub use self::medium::{Blocks, Chance, History, Loss, Replay};
use self::serve::{NAME, Served, Shared};

/// What it is formatted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// With a journal, and data written before the metadata that tells of it.
    Ext4,
    /// As Ext4 with so many inodes.
    Ext4Inodes(u32),
    /// As Ext4, and it counts and limits projects.
    Ext4Quota,
    /// With a journal for metadata alone.
    Xfs,
    /// As Xfs, and it counts and limits projects.
    XfsQuota,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Inodes(_) | Self::Ext4Quota => "ext4",
            Self::Xfs | Self::XfsQuota => "xfs",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Ext4Quota => "loop,prjquota",
            // A copy of a disk may still be mounted somewhere.
            Self::XfsQuota => "loop,nouuid,prjquota",
            Self::Xfs => "loop,nouuid",
            Self::Ext4 | Self::Ext4Inodes(_) => "loop",
        }
    }

    fn make(self, file: &Path) -> Result<()> {
        let mut make = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Self::Ext4 => make.args(["-q", "-F", "-E", "nodiscard"]),
            Self::Ext4Inodes(inodes) => {
                make.args(["-q", "-F", "-E", "nodiscard", "-N"]).arg(inodes.to_string())
            }
            Self::Ext4Quota => {
                make.args(["-q", "-F", "-E", "nodiscard,quotatype=prjquota", "-O", "quota,project"])
            }
            Self::Xfs | Self::XfsQuota => make.args(["-q", "-f", "-K"]),
        };
        run(make.arg(file))
    }
}

/// The disk. Dropping it takes it all apart.
pub struct Disk {
    system: FileSystem,
    size: u64,
    medium: Shared,
    mounted: bool,
    // Ended before its directory goes.
    session: Option<BackgroundSession>,
    directory: TempDir,
}

impl Disk {
    /// A formatted and mounted disk of so many MiB (XFS wants 300).
    pub fn new(system: FileSystem, mib: u64) -> Result<Self> {
        let mut disk = Self::serve(system, mib << 20, Blocks::default())?;
        system.make(&disk.file())?;
        disk.mount()?;
        Ok(disk)
    }

    /// Another disk with the same file system and this content, mounted, which replays its journal. Another, because
    /// a mount may live on in a mount namespace that somebody on this machine made meanwhile.
    pub fn with(&self, blocks: Blocks) -> Result<Self> {
        let mut disk = Self::serve(self.system, self.size, blocks)?;
        disk.mount()?;
        Ok(disk)
    }

    fn serve(system: FileSystem, size: u64, blocks: Blocks) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("berth-e2e-disk-").tempdir()?;
        let (served, medium) = (directory.path().join("served"), Shared::default());
        medium.lock().blocks = blocks;
        std::fs::create_dir(&served)?;
        std::fs::create_dir(directory.path().join("mounted"))?;
        let file = Served::new(medium.clone(), size);
        let session = fuser::spawn_mount(file, &served, &fuser::Config::default());
        let session = Some(session.context("mount a FUSE file system")?);
        Ok(Self { system, size, medium, mounted: false, session, directory })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("served").join(NAME)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn mount(&mut self) -> Result<()> {
        let (file, at) = (self.file(), self.path());
        // Without udev nothing else loads it; elsewhere it is built in, or there.
        let _ = run(Command::new("modprobe").arg("loop"));
        run(Command::new("mount")
            .args(["-t", self.system.name(), "-o", self.system.options()])
            .arg(file)
            .arg(at))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; what runs on it is dead by now, but the kernel may need a moment to see that.
    pub fn unmount(&mut self) -> Result<()> {
        let end = Instant::now() + crate::bound(Duration::from_secs(10));
        while self.mounted {
            let done = run(Command::new("umount").arg(self.path()));
            self.mounted = done.is_err();
            if self.mounted && Instant::now() > end {
                return done;
            }
            std::thread::sleep(Duration::from_millis(if self.mounted { 50 } else { 0 }));
        }
        Ok(())
    }

    /// Remembers from now on what is done to it.
    pub fn record(&self) {
        self.medium.lock().record();
    }

    /// The moment in the recording.
    pub fn now(&self) -> usize {
        self.medium.lock().now()
    }

    /// Ends the recording.
    pub fn recorded(&self) -> Result<History> {
        self.medium.lock().recorded().context("nothing was recorded")
    }

    /// What is on it.
    pub fn blocks(&self) -> Blocks {
        self.medium.lock().blocks.clone()
    }

    /// Turns a bit of `content` on the disk, behind the kernel's back.
    pub fn flip(&self, content: &[u8]) -> Result<()> {
        ensure!(self.medium.lock().blocks.flip(content), "the content is nowhere on the disk");
        Ok(())
    }

    /// After `good` more writes, `failing` writes fail. Zero mends it.
    pub fn fail(&self, good: u64, failing: u64) {
        self.medium.lock().fail(good, failing);
    }

    /// Whether one of so many `failing` writes has failed.
    pub fn has_failed(&self, failing: u64) -> bool {
        self.medium.lock().has_failed(failing)
    }

    /// Has the kernel find ext4 damaged: it turns read-only.
    pub fn turn_read_only(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(self.path()))?;
        let device = std::fs::read_to_string("/proc/self/mountinfo")?;
        let path = self.path();
        let line = device.lines().find(|line| line.split(' ').nth(4) == path.to_str());
        let device = line.and_then(|line| line.split("/dev/").nth(1)?.split(' ').next());
        let device = device.context("the disk has no device")?;
        let trigger = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        std::fs::write(&trigger, "e2e").with_context(|| format!("write {}", trigger.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Else what the kernel still has to write would wait for ever.
        self.fail(0, 0);
        if self.unmount().is_err() {
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
        // The loop device goes a moment after the mount.
        let served = self.directory.path().join("served");
        let end = Instant::now() + Duration::from_secs(2);
        while run(Command::new("umount").arg(&served)).is_err() {
            if Instant::now() > end {
                // It lives on in somebody's mount namespace, and ends with that or with this process.
                let _ = run(Command::new("umount").arg("--lazy").arg(&served));
                return std::mem::forget(self.session.take());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.session.take().map(BackgroundSession::join);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
