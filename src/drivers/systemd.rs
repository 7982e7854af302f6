//! The host's systemd over D-Bus: units, their files and their jobs. What does not live here: which unit does what.
//!
//! The system bus and not /run/systemd/private: zbus 5 does not take the sender that systemd names there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, MessageStream, connection};

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_PROPERTIES: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECT: &str = "/org/freedesktop/systemd1";
/// How long systemd may take for a job that is no start or stop of a service.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A kubelet's or a daemon's orderly start or stop: systemd's own limit is 90 seconds.
const SERVICE: Duration = Duration::from_secs(330);

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus can't be reached.
    #[error("cannot reach systemd over D-Bus")]
    Connect(#[source] Box<zbus::Error>),
    /// A call was refused.
    #[error("systemd refuses {call} of {unit}")]
    Refused {
        /// Method of org.freedesktop.systemd1.Manager.
        call: &'static str,
        /// The unit.
        unit: String,
        /// The D-Bus error.
        #[source]
        source: Box<zbus::Error>,
    },
    /// It took a job and did not finish it well.
    #[error("systemd's job for {unit} ended as {result:?}; `journalctl -u {unit}` tells more")]
    Job {
        /// The unit.
        unit: String,
        /// `failed`, `timeout`, ... (org.freedesktop.systemd1, JobRemoved).
        result: String,
    },
}

impl SystemdError {
    /// Whether it is systemd's own error of this name, for instance `NoSuchUnit`.
    pub fn is(&self, name: &str) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        let zbus::Error::MethodError(found, ..) = &**source else { return false };
        found.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('.')) == Some(name)
    }
}

/// Whether systemd is the host's init (sd_booted(3)).
pub fn runs_host() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What is in force for a unit: its file, and the files that change it, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFiles {
    /// None: there is no such unit.
    pub fragment: Option<PathBuf>,
    /// `*.conf` of its `.d` directories.
    pub drop_ins: Vec<PathBuf>,
}

/// A connection to the host's systemd.
pub struct Systemd {
    connection: Connection,
}

impl Systemd {
    /// By the system bus of this process.
    pub async fn connect() -> Result<Self, SystemdError> {
        Self::within(Connection::system()).await
    }

    /// By the bus that listens at a socket.
    pub async fn at(socket: &Path) -> Result<Self, SystemdError> {
        let address = format!("unix:path={}", socket.display());
        Self::within(async { connection::Builder::address(address.as_str())?.build().await }).await
    }

    /// A bus that accepts and says nothing must not hold anybody up. Ends of jobs are told to subscribers only, who
    /// subscribe once.
    async fn within(
        connecting: impl Future<Output = zbus::Result<Connection>>,
    ) -> Result<Self, SystemdError> {
        let connecting = async {
            let connection = connecting.await?;
            connection.call_method(Some(NAME), OBJECT, Some(MANAGER), "Subscribe", &()).await?;
            Ok(connection)
        };
        let late = || zbus::Error::InputOutput(Arc::new(std::io::ErrorKind::TimedOut.into()));
        let made = tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(late()));
        Ok(Self { connection: made.map_err(|error| SystemdError::Connect(Box::new(error)))? })
    }

    /// Starts a service and waits until it is ready. One that runs is fine.
    pub async fn start(&self, unit: &str) -> Result<(), SystemdError> {
        self.job("StartUnit", unit, &(unit, "replace"), SERVICE).await
    }

    /// Stops a unit and waits for its end; one that is gone is fine.
    pub async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        match self.job("StopUnit", unit, &(unit, "replace"), SERVICE).await {
            Err(error) if error.is("NoSuchUnit") => Ok(()),
            result => result,
        }
    }

    /// Restarts a service, or starts it.
    pub async fn restart(&self, unit: &str) -> Result<(), SystemdError> {
        self.job("RestartUnit", unit, &(unit, "replace"), SERVICE).await
    }

    /// Has the unit files read again.
    pub async fn reload(&self) -> Result<(), SystemdError> {
        self.call("Reload", "all units", &()).await.map(drop)
    }

    /// Has a unit start at boot.
    pub async fn enable(&self, unit: &str) -> Result<(), SystemdError> {
        self.call("EnableUnitFiles", unit, &(vec![unit], false, true)).await.map(drop)
    }

    /// Has a unit start at boot no more.
    pub async fn disable(&self, unit: &str) -> Result<(), SystemdError> {
        self.call("DisableUnitFiles", unit, &(vec![unit], false)).await.map(drop)
    }

    /// Runs a command as a service that nobody configured and that is forgotten when it ends; one of this name that
    /// runs is fine.
    pub async fn run_transient(&self, unit: &str, words: &[String]) -> Result<(), SystemdError> {
        let program = words.first().cloned().unwrap_or_default();
        let properties = vec![
            ("Description", Value::from(format!("Berth: {}", words.join(" ")))),
            ("Type", Value::from("exec")),
            ("CollectMode", Value::from("inactive-or-failed")),
            ("ExecStart", Value::from(vec![(program, words.to_vec(), false)])),
        ];
        let auxiliary: Vec<(String, Vec<(String, Value<'_>)>)> = Vec::new();
        match self.job("StartTransientUnit", unit, &(unit, "fail", properties, auxiliary), PATIENCE).await {
            Err(error) if error.is("UnitExists") => Ok(()),
            result => result,
        }
    }

    /// Which files make a unit.
    pub async fn files(&self, unit: &str) -> Result<UnitFiles, SystemdError> {
        let fragment: String = self.property(unit, UNIT, "FragmentPath").await?;
        let drop_ins: Vec<String> = self.property(unit, UNIT, "DropInPaths").await?;
        Ok(UnitFiles {
            fragment: (!fragment.is_empty()).then(|| fragment.into()),
            drop_ins: drop_ins.into_iter().map(PathBuf::from).collect(),
        })
    }

    /// The process of a service that runs.
    pub async fn main_pid(&self, unit: &str) -> Result<Option<u32>, SystemdError> {
        let pid: u32 = self.property(unit, SERVICE_PROPERTIES, "MainPID").await?;
        Ok((pid != 0).then_some(pid))
    }

    /// How often a service was started anew because it had ended, since somebody last had it started.
    pub async fn restarts(&self, unit: &str) -> Result<u32, SystemdError> {
        self.property(unit, SERVICE_PROPERTIES, "NRestarts").await
    }

    /// What a service last said of itself (`STATUS=` of sd_notify(3)).
    pub async fn status_text(&self, unit: &str) -> Result<String, SystemdError> {
        self.property(unit, SERVICE_PROPERTIES, "StatusText").await
    }

    async fn property<T>(&self, unit: &str, interface: &str, name: &'static str) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedValue>,
        T::Error: Into<zbus::zvariant::Error>,
    {
        let refused = |error: zbus::Error| refused("LoadUnit", unit, error);
        let reply = self.call("LoadUnit", unit, &unit).await?;
        let object: OwnedObjectPath = reply.body().deserialize().map_err(refused)?;
        let reply = self
            .connection
            .call_method(Some(NAME), &object, Some(PROPERTIES), "Get", &(interface, name))
            .await;
        let value: OwnedValue = reply.map_err(refused)?.body().deserialize().map_err(refused)?;
        T::try_from(value).map_err(|error| refused(zbus::Error::Variant(error.into())))
    }

    async fn call<B>(&self, call: &'static str, unit: &str, body: &B) -> Result<zbus::Message, SystemdError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let reply = self.connection.call_method(Some(NAME), OBJECT, Some(MANAGER), call, body).await;
        reply.map_err(|error| refused(call, unit, error))
    }

    /// Calls a method that returns a job and waits for the job's end.
    pub async fn job<B>(
        &self,
        call: &'static str,
        unit: &str,
        body: &B,
        patience: Duration,
    ) -> Result<(), SystemdError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let result = match tokio::time::timeout(patience, self.finish(call, body)).await {
            Ok(result) => result.map_err(|error| refused(call, unit, error))?,
            Err(_) => format!("no answer in {} seconds", patience.as_secs()),
        };
        if result == "done" { Ok(()) } else { Err(SystemdError::Job { unit: unit.into(), result }) }
    }

    async fn finish<B>(&self, call: &'static str, body: &B) -> zbus::Result<String>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let rule = zbus::MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(MANAGER)?
            .member("JobRemoved")?
            .build();
        // Made before the call: the job may end before its reply is read.
        let mut messages = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let reply = self.connection.call_method(Some(NAME), OBJECT, Some(MANAGER), call, body).await?;
        let job: OwnedObjectPath = reply.body().deserialize()?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let (_, removed, _, result): (u32, OwnedObjectPath, String, String) =
                message.body().deserialize()?;
            if removed == job {
                return Ok(result);
            }
        }
        Ok("connection closed".into())
    }
}

fn refused(call: &'static str, unit: &str, error: zbus::Error) -> SystemdError {
    SystemdError::Refused { call, unit: unit.into(), source: Box::new(error) }
}
