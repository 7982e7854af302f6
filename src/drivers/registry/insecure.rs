//! Registries that registries.conf calls insecure: whether one of them speaks TLS is found out before it is asked for
//! anything. What does not live here: whom to trust.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::hosts::{Host, is_loopback};
use super::tls::Clients;

/// How long what was found out counts.
const LIFE: Duration = Duration::from_secs(300);
/// Whoever knows no TLS says so at once; whoever says nothing may be slow, and is asked by TLS then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which hosts want plain HTTP, by their names.
#[derive(Default)]
pub(super) struct Plain(Mutex<HashMap<String, (bool, Instant)>>);

impl Plain {
    /// Makes the host's URL one of plain HTTP if the host knows no TLS. No secret is sent on the way.
    pub(super) async fn settle(&self, clients: &Arc<Clients>, host: &mut Host) {
        let name = host.name();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied();
        let plain = match known.filter(|(_, when)| when.elapsed() < LIFE) {
            Some((plain, _)) => plain,
            None => {
                let Some(plain) = knows_no_tls(clients, host).await else { return };
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, (_, when)| when.elapsed() < LIFE);
                known.insert(name, (plain, Instant::now()));
                plain
            }
        };
        if plain {
            let _ = host.base.set_scheme("http");
        }
    }
}

/// None if nothing is there that could tell.
async fn knows_no_tls(clients: &Arc<Clients>, host: &Host) -> Option<bool> {
    let (clients, files, direct) = (clients.clone(), host.tls.clone(), is_loopback(&host.base));
    let client = tokio::task::spawn_blocking(move || clients.get(&files, direct)).await.ok()?.ok()?;
    let ask = |base: url::Url| tokio::time::timeout(PATIENCE, client.get(base).send());
    if ask(host.base.clone()).await.ok()?.is_ok() {
        return Some(false);
    }
    let mut plain = host.base.clone();
    plain.set_scheme("http").ok()?;
    ask(plain).await.ok()?.is_ok().then_some(true)
}
