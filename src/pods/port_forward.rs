//! PortForward: connections to a pod's ports, from inside of it. What does not live here: carrying them to the client.

use tokio::net::TcpStream;

use super::{Cause, Pod, PodError, Pods};
use crate::drivers::network::dial;
use crate::ids::PodId;

impl Pods {
    /// What PortForward itself has to refuse: an unknown pod, and one that is not ready.
    pub fn check_port_forward(&self, id: &str) -> Result<PodId, PodError> {
        let pod = self.find(id)?;
        ready(&pod).map_err(|cause| cause.of(pod.id()))?;
        Ok(pod.id().clone())
    }

    /// Connects to the pod's loopback, first by IPv4, then by IPv6; to the host's where the pod has no network of its own.
    pub async fn dial(&self, id: &PodId, port: u16) -> Result<TcpStream, PodError> {
        let pod = self.find(id.as_str())?;
        self.dial_in(&pod, port).await.map_err(|cause| cause.of(pod.id()))
    }

    async fn dial_in(&self, pod: &Pod, port: u16) -> Result<TcpStream, Cause> {
        ready(pod)?;
        let own = !pod.sandbox.spec.namespaces.host_network;
        let netns = own.then(|| self.drivers.layout.network_namespace(pod.id()));
        dial::dial(netns.as_deref(), port).await.map_err(|source| Cause::Dial { port, source })
    }
}

fn ready(pod: &Pod) -> Result<(), Cause> {
    if pod.is_ready() { Ok(()) } else { Err(Cause::NotReady) }
}
