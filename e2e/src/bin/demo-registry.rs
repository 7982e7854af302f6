//! For `make run`: a registry with one busybox image. Prints the image's name and serves until it is ended.

use anyhow::Result;
use berth_e2e::images::catalog;
use berth_e2e::registry::Registry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let registry = Registry::start()?;
    println!("{}", registry.publish("busybox", "latest", &catalog::busybox()?)?);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupt = tokio::signal::ctrl_c() => interrupt?,
    }
    Ok(())
}
