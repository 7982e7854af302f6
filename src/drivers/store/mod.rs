//! Records, kept across restarts in one SQLite database: tables of key and JSON value.
//! What does not live here: what the records mean, and big data.
//!
//! Two strengths of "kept". `Durability::Process` survives the daemon's death at any moment, and is what pods and
//! containers need; it costs no fsync (WAL, synchronous=NORMAL). `Durability::Power` survives a power cut too, and is
//! what an image's record needs before the image is visible.

mod ballast;

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::{Connection, ErrorCode, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use self::ballast::Ballast;
use crate::error::Kind;

/// A type with a table of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Name of the table: letters and underscores.
    const TABLE: &'static str;
}

/// What a finished write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// kill -9 of the daemon.
    Process,
    /// A power cut.
    Power,
}

/// Why a record could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("cannot {verb} {path}")]
    Sqlite {
        /// What was tried.
        verb: &'static str,
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A record that does not turn into JSON.
    #[error("cannot encode a record of {table} with key {key:?}")]
    Encode {
        /// Its table.
        table: &'static str,
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The writing thread has ended: the daemon is stopping.
    #[error("the record store {0} is closed")]
    Closed(PathBuf),
}

impl StoreError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        let Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. } = self else {
            return Kind::Internal;
        };
        match error.code {
            ErrorCode::DiskFull => Kind::ResourceExhausted,
            ErrorCode::ReadOnly => Kind::FailedPrecondition,
            _ => Kind::Internal,
        }
    }
}

/// A record that can't be read: the others can.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of {table} is damaged")]
pub struct Damaged {
    /// Its table.
    pub table: &'static str,
    /// Its key.
    pub key: String,
    /// Why.
    #[source]
    pub source: serde_json::Error,
}

/// A key, and its record if that can be read.
pub type Loaded<R> = (String, Result<R, Damaged>);

/// Several changes that become visible together.
#[derive(Debug, Default)]
pub struct Transaction {
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    table: &'static str,
    key: String,
    value: Option<Vec<u8>>,
}

impl Transaction {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a record.
    pub fn put<R: Record>(&mut self, key: &str, record: &R) -> Result<(), StoreError> {
        let value = serde_json::to_vec(record).map_err(|source| StoreError::Encode {
            table: R::TABLE,
            key: key.to_string(),
            source,
        })?;
        self.changes.push(Change { table: R::TABLE, key: key.to_string(), value: Some(value) });
        Ok(())
    }

    /// Removes a record; fine if there is none.
    pub fn delete<R: Record>(&mut self, key: &str) {
        self.changes.push(Change { table: R::TABLE, key: key.to_string(), value: None });
    }
}

struct Write {
    changes: Vec<Change>,
    durability: Durability,
    done: oneshot::Sender<Result<(), rusqlite::Error>>,
}

/// The open database. Cheap to share by reference; writes go through one thread, in order.
pub struct Store {
    path: PathBuf,
    writes: mpsc::Sender<Write>,
}

impl Store {
    /// Opens or makes the database at `path`, mode 0600.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |verb| move |source| StoreError::Sqlite { verb, path: path.to_path_buf(), source };
        let db = connect(path).map_err(failed("open"))?;
        let ballast = Ballast::new(path.with_extension("ballast"));
        let (writes, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_loop(db, ballast, &queue))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
            .map_err(failed("start the writer of"))?;
        Ok(Self { path: path.to_path_buf(), writes })
    }

    /// Keeps one record.
    pub async fn put<R: Record>(
        &self,
        key: &str,
        record: &R,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut transaction = Transaction::new();
        transaction.put(key, record)?;
        self.commit(transaction, durability).await
    }

    /// Removes one record; fine if there is none.
    pub async fn delete<R: Record>(&self, key: &str, durability: Durability) -> Result<(), StoreError> {
        let mut transaction = Transaction::new();
        transaction.delete::<R>(key);
        self.commit(transaction, durability).await
    }

    /// Makes all changes of a transaction, or none. They are made even if the caller stops waiting.
    pub async fn commit(&self, transaction: Transaction, durability: Durability) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let write = Write { changes: transaction.changes, durability, done };
        self.writes.send(write).map_err(|_| StoreError::Closed(self.path.clone()))?;
        let result = result.await.map_err(|_| StoreError::Closed(self.path.clone()))?;
        result.map_err(|source| StoreError::Sqlite { verb: "write", path: self.path.clone(), source })
    }

    /// Every record of a table with its key, in the order of keys; for the start of the daemon.
    pub fn load<R: Record>(&self) -> Result<Vec<Loaded<R>>, StoreError> {
        let read = || -> Result<Vec<(String, Vec<u8>)>, rusqlite::Error> {
            let db = connect(&self.path)?;
            ensure_table(&db, R::TABLE)?;
            let mut rows = db.prepare(&format!("SELECT key, value FROM {} ORDER BY key", R::TABLE))?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let rows =
            read().map_err(|source| StoreError::Sqlite { verb: "read", path: self.path.clone(), source })?;
        Ok(rows.into_iter().map(|(key, value)| decode::<R>(key, &value)).collect())
    }
}

fn decode<R: Record>(key: String, value: &[u8]) -> Loaded<R> {
    let record =
        serde_json::from_slice(value).map_err(|source| Damaged { table: R::TABLE, key: key.clone(), source });
    (key, record)
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open(path)?;
    // Nobody else reads or writes while this runs: the file is made by the line above, in a directory of mode 0700.
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -256)?;
    Ok(db)
}

fn ensure_table(db: &Connection, table: &str) -> Result<(), rusqlite::Error> {
    db.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
    ))
}

fn write_loop(mut db: Connection, mut ballast: Ballast, queue: &mpsc::Receiver<Write>) {
    while let Ok(write) = queue.recv() {
        ballast.restore();
        let mut result = apply(&mut db, &write.changes, write.durability);
        let full = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        if result.as_ref().is_err_and(full) && ballast.give_up() {
            result = apply(&mut db, &write.changes, write.durability);
        }
        // The caller may have gone; the write stands all the same.
        let _ = write.done.send(result);
    }
}

fn apply(db: &mut Connection, changes: &[Change], durability: Durability) -> Result<(), rusqlite::Error> {
    for change in changes {
        ensure_table(db, change.table)?;
    }
    // FULL syncs the write-ahead log at commit, and with it every commit before this one.
    let level = if durability == Durability::Power { "FULL" } else { "NORMAL" };
    db.pragma_update(None, "synchronous", level)?;
    let transaction = db.transaction()?;
    for change in changes {
        match &change.value {
            Some(value) => transaction
                .prepare_cached(&format!(
                    "INSERT OR REPLACE INTO {} (key, value) VALUES (?1, ?2)",
                    change.table
                ))?
                .execute(params![change.key, value])?,
            None => transaction
                .prepare_cached(&format!("DELETE FROM {} WHERE key = ?1", change.table))?
                .execute(params![change.key])?,
        };
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Ship {
        name: String,
    }
    impl Record for Ship {
        const TABLE: &'static str = "ships";
    }
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Broken(u8);
    impl Record for Broken {
        const TABLE: &'static str = "ships";
    }

    fn ship(name: &str) -> Ship {
        Ship { name: name.into() }
    }

    #[tokio::test]
    async fn records_survive_the_store_and_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Store::open(&path).unwrap();
        store.put("b", &ship("two"), Durability::Power).await.unwrap();
        store.put("a", &ship("one"), Durability::Process).await.unwrap();
        store.put("c", &ship("three"), Durability::Process).await.unwrap();
        store.delete::<Ship>("c", Durability::Process).await.unwrap();
        store.delete::<Ship>("never", Durability::Process).await.unwrap();
        // No close: as after kill -9.
        std::mem::forget(store);
        let again = Store::open(&path).unwrap();
        let ships: Vec<_> =
            again.load::<Ship>().unwrap().into_iter().map(|(k, v)| (k, v.unwrap().name)).collect();
        assert_eq!(ships, [("a".into(), "one".into()), ("b".into(), "two".into())]);
    }

    #[tokio::test]
    async fn a_damaged_record_is_named_and_the_others_load() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        store.put("bad", &Broken(7), Durability::Process).await.unwrap();
        store.put("good", &ship("one"), Durability::Process).await.unwrap();
        let loaded = store.load::<Ship>().unwrap();
        assert_eq!(loaded.len(), 2);
        assert!(loaded[0].1.as_ref().unwrap_err().to_string().contains("bad"));
        assert_eq!(loaded[1].1.as_ref().unwrap(), &ship("one"));
    }

    #[tokio::test]
    async fn a_transaction_is_whole_even_if_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let mut transaction = Transaction::new();
        transaction.put("x", &ship("x")).unwrap();
        transaction.put("y", &ship("y")).unwrap();
        drop(store.commit(transaction, Durability::Process));
        store.put("z", &ship("z"), Durability::Process).await.unwrap();
        let mut transaction = Transaction::new();
        transaction.put("x", &ship("x")).unwrap();
        transaction.delete::<Ship>("z");
        store.commit(transaction, Durability::Process).await.unwrap();
        let keys: Vec<_> = store.load::<Ship>().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["x"]);
    }
}
