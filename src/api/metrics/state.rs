//! Gauges, read at each scrape from what they count: nothing is kept twice.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::cri::Services;
use crate::clock;
use crate::containers::list::PhaseName;
use crate::drivers::disk_usage;

/// The daemon's objects, at the moment of a scrape.
pub(super) struct State {
    services: Services,
    /// Seconds since the epoch.
    started: f64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(services: Services) -> Self {
        Self { services, started: clock::now() as f64 / 1e9 }
    }

    fn pods(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let pods = self.services.pods.list(&Default::default());
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        let states = [("ready", ready), ("not_ready", pods.len() - ready)];
        page.family("pods", "Pod sandboxes", "state", states)?;
        let shims = pods.iter().filter(|pod| pod.sandbox.shim().is_some()).count();
        page.gauge("shims", "Shims, one for each ready pod", shims as f64)
    }

    fn containers(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let containers = self.services.containers.list(&Default::default());
        let count = |name| containers.iter().filter(|container| container.phase().name() == name).count();
        let states = [
            ("created", count(PhaseName::Created)),
            ("running", count(PhaseName::Running)),
            ("exited", count(PhaseName::Exited)),
        ];
        page.family("containers", "Containers", "state", states)
    }

    fn disk(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let (layers, blobs) = (self.services.images.layer_usage(), self.services.images.blob_usage());
        let writable = self.services.containers.writable_usage();
        page.gauge("image_layers", "Unpacked layers", self.services.images.layer_count() as f64)?;
        let bytes = [("layers", layers.bytes), ("writable", writable.bytes), ("blobs", blobs.bytes)];
        let help = "Bytes of unpacked layers, of containers' writable layers, of manifests and configs";
        page.family("disk_used_bytes", help, "kind", bytes)?;
        let inodes = [("layers", layers.inodes), ("writable", writable.inodes), ("blobs", blobs.inodes)];
        page.family("disk_inodes_used", "Inodes of the same", "kind", inodes)?;
        let layout = &self.services.drivers.layout;
        let places = [layout.root(), layout.state()].into_iter().filter_map(|path| {
            Some((path.to_string_lossy(), disk_usage::file_system(path).ok()?.bytes_avail))
        });
        page.family("filesystem_avail_bytes", "What is left where Berth stores things", "path", places)
    }
}

impl Collector for State {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.pods(&mut page)?;
        self.containers(&mut page)?;
        self.disk(&mut page)?;
        page.gauge("start_time_seconds", "When the daemon began, since the epoch", self.started)
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// One gauge for each value of a label.
    fn family<L: AsRef<str>, N: TryInto<u64>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, N)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            let value = value.try_into().unwrap_or(u64::MAX) as f64;
            ConstGauge::new(value).encode(family.encode_family(&[(label, of.as_ref())])?)?;
        }
        Ok(())
    }
}
