//! A small image of busybox, a container of it, and what came out. No test lives here.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::container::{Exec, PidNamespace, Pod, Progress, SpawnError, Spawning, Start, Stdio, exec, start};
use crate::image;

/// One container to be: change `spec` and the image, then run it.
pub struct Case {
    pub directory: TempDir,
    pub spec: Value,
    pub seccomp: Option<Vec<u8>>,
    pub cgroups: Vec<String>,
    pub cgroup_v2: bool,
    pub pod: Pod,
    pub pid: PidNamespace<'static>,
    pub layers: usize,
    pub volumes: Vec<OwnedFd>,
}

/// A running container or exec.
pub struct Running {
    pub pid: Pid,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Case {
    /// Runs `script` by /bin/sh in a plain container.
    pub fn sh(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    pub fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-container-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pod = Pod { shm: None, user_ns: None, init: None };
        let case = Self {
            directory,
            spec: spec(arguments),
            seccomp: None,
            cgroups: Vec::new(),
            cgroup_v2: false,
            pod,
            pid: PidNamespace::New,
            layers: 1,
            volumes: Vec::new(),
        };
        image::make(&case.image());
        case
    }

    /// The image's only layer that is not empty, to be changed before the start.
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        self.mount(json!({"type": "bind", "source": source, "destination": destination, "options": options}));
    }

    /// A directory of the host with this name, for a volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn start(&self) -> Result<Running, SpawnError> {
        self.start_with(self.root())
    }

    /// Starts on a root made before.
    pub fn start_with(&self, root: OwnedFd) -> Result<Running, SpawnError> {
        let bundle = self.directory.path().join("bundle");
        fs::create_dir_all(&bundle).unwrap();
        fs::set_permissions(&bundle, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(bundle.join("config.json"), self.spec.to_string()).unwrap();
        let (stdio, running) = streams(self.spec["process"]["terminal"] == json!(true));
        let pid = match &self.pid {
            PidNamespace::New => PidNamespace::New,
            PidNamespace::Host => PidNamespace::Host,
            PidNamespace::Join(fd) => PidNamespace::Join(*fd),
        };
        let spawning = start(Start {
            bundle: &bundle,
            root,
            volumes: self.volumes.iter().map(|fd| fd.try_clone().unwrap()).collect(),
            seccomp: self.seccomp.as_deref().map(memory_file),
            seccomp_flags: &[],
            cgroups: &self.cgroups,
            cgroup_v2: self.cgroup_v2,
            stdio,
            pid,
            pod: &self.pod,
        });
        follow(spawning?, running)
    }

    /// A container that sleeps, to execute in. Its image lives as long as the case.
    pub fn sleeping() -> (Self, Running) {
        let case = Self::sh("exec sleep 1000");
        let running = case.start().unwrap();
        (case, running)
    }

    pub fn run(&self) -> Output {
        self.start().unwrap().finish()
    }

    pub fn error(&self) -> SpawnError {
        match self.start() {
            Err(error) => error,
            Ok(running) => panic!("started: {:?}", running.finish()),
        }
    }

    /// A detached overlay of the image under `layers - 1` empty layers, as the daemon would make it.
    pub fn root(&self) -> OwnedFd {
        let path = |name: String| {
            let path = self.directory.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for layer in 1..self.layers {
            let layer = path(format!("layer{layer}"));
            fs::write(layer.join(layer.file_name().unwrap()), "").unwrap();
            fsconfig_set_string(context.as_fd(), "lowerdir+", &layer).unwrap();
        }
        fsconfig_set_string(context.as_fd(), "lowerdir+", self.image()).unwrap();
        fsconfig_set_string(context.as_fd(), "lowerdir+", image::base()).unwrap();
        let run = fs::read_dir(self.directory.path()).unwrap().count();
        let (upper, owner) = (path(format!("upper{run}")), fs::metadata(self.image()).unwrap());
        chown(&upper, Some(owner.uid()), Some(owner.gid())).unwrap();
        fsconfig_set_string(context.as_fd(), "upperdir", upper).unwrap();
        fsconfig_set_string(context.as_fd(), "workdir", path(format!("work{run}"))).unwrap();
        let _ = rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile");
        fsconfig_create(context.as_fd()).unwrap();
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
    }
}

impl Running {
    /// Executes `process` (OCI JSON) in it.
    pub fn exec(&self, process: &Value, cgroups: &[String]) -> Result<Self, SpawnError> {
        let target = self.pidfd();
        let (stdio, running) = streams(process["terminal"] == json!(true));
        let spawning = exec(Exec {
            process: memory_file(process.to_string().as_bytes()),
            target: target.as_fd(),
            seccomp: None,
            seccomp_flags: &[],
            cgroups,
            stdio,
        });
        follow(spawning?, running)
    }

    pub fn pidfd(&self) -> OwnedFd {
        let pid = rustix::process::Pid::from_raw(self.pid.as_raw()).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    }

    pub fn exec_sh(&self, script: &str) -> Output {
        self.exec(&process(&["/bin/sh", "-c", script]), &[]).unwrap().finish()
    }

    pub fn finish(mut self) -> Output {
        drop(self.stdin.take());
        let stdout = self.stdout.take().map(read).unwrap_or_default();
        let stderr = self.stderr.take().map(read).unwrap_or_default();
        Output { code: reap(self.pid), stdout, stderr }
    }

    pub fn kill(self) {
        nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        reap(self.pid);
    }
}

fn read(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    fs::File::from(fd).read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn reap(pid: Pid) -> i32 {
    match waitpid(pid, None).unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

/// Follows a spawn to its end, as the shim's event loop does.
pub fn follow(mut spawning: Spawning, mut running: Running) -> Result<Running, SpawnError> {
    let builder = spawning.builder;
    let result = loop {
        match spawning.next() {
            Progress::Pending => {
                let fd = spawning.as_fd();
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
            }
            Progress::Spawned { pid, terminal } => {
                running.pid = pid;
                running.terminal = terminal;
            }
            Progress::Executing => break Ok(()),
            Progress::Failed(error) => break Err(error),
        }
    };
    reap(builder);
    match result {
        Ok(()) => Ok(running),
        Err(error) => {
            if running.pid.as_raw() != 0 {
                reap(running.pid);
            }
            Err(error)
        }
    }
}

pub fn streams(terminal: bool) -> (Stdio, Running) {
    let mut running =
        Running { pid: Pid::from_raw(0), stdin: None, stdout: None, stderr: None, terminal: None };
    if terminal {
        return (Stdio::Terminal, running);
    }
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let ((stdin, a), (b, stdout), (c, stderr)) = (pipe(), pipe(), pipe());
    (running.stdin, running.stdout, running.stderr) = (Some(a), Some(b), Some(c));
    (Stdio::Pipes { stdin, stdout, stderr }, running)
}

pub fn memory_file(bytes: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, bytes).unwrap();
    fd
}

pub fn process(arguments: &[&str]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"];
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": arguments,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
        },
    })
}

fn spec(arguments: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": process(arguments),
        "root": {"path": "rootfs", "readonly": false},
        "mounts": [
            {"type": "proc", "source": "proc", "destination": "/proc", "options": ["nosuid", "noexec", "nodev"]},
            {"type": "tmpfs", "source": "tmpfs", "destination": "/dev",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"type": "devpts", "source": "devpts", "destination": "/dev/pts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"type": "mqueue", "source": "mqueue", "destination": "/dev/mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"type": "tmpfs", "source": "shm", "destination": "/dev/shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware", "/nowhere"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The host's mounts, without those that others' tests may have beneath the temporary directory.
pub fn mount_table() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains("berth-container-")).map(str::to_owned).collect()
}

/// The value of a line `name:\tvalue` as in /proc/self/status.
pub fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}
