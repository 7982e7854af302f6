//! The images that pods run, under the names that Kubernetes' own tests have for them. Mirrors stand for
//! registry.k8s.io and docker.io.

use anyhow::Result;
use berth_e2e::images::{Image, agnhost, catalog};
use berth_e2e::registry::Registry;

/// Kubernetes' test program with a command for each thing that a pod may have to do, and busybox's tools.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// A shell with the usual tools.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// nginx on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.15-4";
/// Another tag of it, with another id.
pub const NGINX_NEW: &str = "registry.k8s.io/e2e-test-images/nginx:1.27-0";
/// busybox's web server on port 80.
pub const HTTPD: &str = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4";
/// A program that waits, and nothing else.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// Puts all of them into the registry.
pub fn publish(registry: &Registry) -> Result<()> {
    let (busybox, nginx, pause) = (catalog::busybox()?, catalog::nginx(80)?, catalog::pause()?);
    let publish = |name: &str, image: &Image| -> Result<()> {
        let path = name.split_once('/').map_or(name, |(_, path)| path);
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
        registry.publish(repository, tag, image).map(drop)
    };
    publish(AGNHOST, &agnhost::image()?)?;
    publish(HTTPD, &catalog::httpd()?)?;
    publish(NGINX_NEW, &nginx.clone().label("version", "new"))?;
    // Programs with the C library: those of busybox here.
    publish("registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", &busybox)?;
    publish("registry.k8s.io/e2e-test-images/nonroot:1.5", &busybox.clone().user("1234"))?;
    publish("registry.k8s.io/e2e-test-images/nonewprivs:1.4", &catalog::setuid_probe()?)?;
    for (name, user) in [("by-name", "www-data"), ("by-number", "1002"), ("unknown", "nosuchuser")] {
        let image = busybox.clone().user(user).cmd(&["id", "-u"]);
        publish(&format!("docker.io/library/user-{name}"), &image)?;
    }
    for (image, names) in [
        (&busybox, [BUSYBOX, "docker.io/library/busybox:latest"]),
        (&nginx, [NGINX, "docker.io/library/nginx:latest"]),
        // containerd's own.
        (&pause, [PAUSE, "registry.k8s.io/pause:3.9"]),
    ] {
        names.iter().try_for_each(|name| publish(name, image))?;
    }
    Ok(())
}
